"""How many bytes each tier has for a cell: what the budget says or, where it says auto, a share of the machine's."""

from __future__ import annotations

import tempfile

import psutil

from engines.hardware import Hardware
from engines.model.config import ModelConfig
from harness.errors import ConfigError
from harness.gpu import local_gpus
from harness.machine import machine_of
from harness.plan import CellSpec
from harness.several_gpus import of_all

GPU_SHARE = 0.9  # of a GPU's memory, when the budget says auto: the rest is the driver's and the allocator's
RAM_SHARE = 0.25  # of this machine's memory for an emulated accelerator's KV, when the budget says auto
HOST_SHARE = 0.5  # of a modelled host's memory, when the budget says auto
DISK_SHARE = 0.5  # of what is free
MODELLED_DISK = 2**40  # of a machine that is only simulated


def models_whole_machine(spec: CellSpec) -> Hardware | None:
    """Where a catalogue machine is simulated in its own size."""
    if spec.backend != "sim" or spec.hardware is None or spec.emulation.pace.reference_model is not None:
        return None
    return machine_of(spec)


def accel_memory(spec: CellSpec, taken_bytes: int) -> int:
    """`taken_bytes`: what all weights and a step's rows need."""
    asked = spec.budget.accel_memory
    if isinstance(asked, int):
        return of_all(spec, asked)
    memory = machine_memory(spec, taken_bytes)
    if memory is None:
        raise ConfigError("budget.accel_memory: give it, nothing is known of the machine behind an endpoint")
    return memory


def host_memory(spec: CellSpec) -> int:
    asked = spec.budget.host_memory
    if isinstance(asked, int):
        return asked
    if (machine := models_whole_machine(spec)) is not None:
        return int(machine.cpu.memory_bytes * HOST_SHARE)
    return int(psutil.virtual_memory().total * RAM_SHARE)


def disk_memory(spec: CellSpec) -> int:
    asked = spec.budget.disk
    if isinstance(asked, int):
        return asked
    if spec.backend == "sim":
        return MODELLED_DISK
    folder = disk_folder(spec)
    try:
        return int(psutil.disk_usage(folder).free * DISK_SHARE)
    except OSError as error:
        raise ConfigError(f"budget.disk_folder: {folder}: {error.strerror}; name a folder that exists") from error


def disk_folder(spec: CellSpec) -> str:
    return spec.budget.disk_folder or tempfile.gettempdir()


def machine_memory(spec: CellSpec, taken_bytes: int) -> int | None:
    """None where nobody can know: the machine behind an endpoint is not ours to size."""
    if spec.backend == "endpoint":
        return None
    if spec.backend == "cuda":
        gpus, reason = local_gpus()
        if not gpus:
            raise ConfigError(f"budget.accel_memory: auto is sized from the GPU: {reason}")
        return int(gpus[0].memory_bytes * GPU_SHARE)
    if (machine := models_whole_machine(spec)) is not None:
        return of_all(spec, int(machine.gpu.memory_bytes * GPU_SHARE))
    return taken_bytes + int(psutil.virtual_memory().total * RAM_SHARE)


def workspace_bytes(spec: CellSpec, model: ModelConfig, dtype_bytes: int) -> int:
    """Activations of one layer at the largest batch (they are reused layer after layer), and the logits in float32; on
    each GPU.
    """
    widest = 3 * model.hidden_size + model.qkv_size + model.up_size
    each = spec.budget.max_batch_tokens * widest * dtype_bytes + spec.budget.max_batch * model.vocab_size * 4
    return of_all(spec, each)
