"""An engine on several GPUs of one machine: what each holds, what their rates come to, and where that can be asked for.

`tensor`: every layer is split over all of them, which add up what each has made, twice a layer. For a scheduler that is
one larger GPU. `pipeline`: each has a run of layers, and batches pass through (engines/core/stages.py).

Simulated only: our runtime computes on one GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from engines.core.placement import Placement
from engines.core.roofline import MachineRates
from engines.core.stages import staged
from engines.hardware import Hardware
from engines.model.config import ModelConfig, load_config
from engines.registry import is_policy, make_engine
from harness.errors import ConfigError
from harness.experiment import Budget
from harness.machine import machine_of
from harness.plan import CellSpec

PIPELINED = ("gpu_only", "static_partition", "lp_balanced", "weight_streaming")  # others' overlap is within one GPU


def largest_share(spec: CellSpec) -> float:
    """Of the layers, that the fullest GPU holds: heads are not divided, and layers of a pipeline are not."""
    gpus, model = spec.engine.gpus, load_config(spec.model)
    whole = model.kv_heads if spec.engine.parallel == "tensor" else model.layers
    return -(-whole // gpus) / whole


def of_all(spec: CellSpec, bytes_each: int) -> int:
    """What so many bytes on each GPU come to: as far as all can be filled when the fullest is."""
    return bytes_each if spec.engine.gpus == 1 else int(bytes_each / largest_share(spec))


def budget_of_all(spec: CellSpec) -> Budget:
    """With the memory of all GPUs."""
    each = spec.budget.accel_memory
    if not isinstance(each, int):
        return spec.budget
    return spec.budget.model_copy(update={"accel_memory": of_all(spec, each)})


def stages(spec: CellSpec) -> int:
    return spec.engine.gpus if spec.engine.parallel == "pipeline" else 1


def spread(spec: CellSpec, placement: Placement) -> Placement:
    """Over the stages, where there are several."""
    return placement if stages(spec) == 1 else staged(placement, stages(spec))


def rates_of_all(spec: CellSpec, rates: MachineRates, hardware: Hardware) -> MachineRates:
    """Of the GPUs together where every layer is split over them; else of one of them, and the way to the next."""
    if spec.engine.gpus == 1:
        return rates
    peers = hardware.peers
    if peers is None:
        raise ConfigError(next(_machine_problems(spec, hardware)))
    rates = replace(rates, peer_bytes_per_s=peers.bytes_per_s, peer_latency_s=peers.latency_s)
    if spec.engine.parallel == "pipeline":
        return rates
    times = 1 / largest_share(spec)
    return replace(
        rates,
        shares=spec.engine.gpus,
        gemm_bytes_per_s=rates.gemm_bytes_per_s * times,
        gemm_flops_per_s=rates.gemm_flops_per_s * times,
        gemm_by_shape=(),  # part of a matrix has another shape, with waves of its own
        packed_bytes_per_s=rates.packed_bytes_per_s * times,
        packed_flops_per_s=rates.packed_flops_per_s * times,
        attention_bytes_per_s=rates.attention_bytes_per_s * times,
        h2d_bytes_per_s=min(rates.h2d_bytes_per_s * times, peers.host_bytes_per_s),
        d2h_bytes_per_s=min(rates.d2h_bytes_per_s * times, peers.host_bytes_per_s),
    )


def gpu_problems(spec: CellSpec) -> Iterator[str]:
    """Why this cell cannot have several GPUs; nothing where it asks for one."""
    engine, where = spec.engine, f"engine {spec.engine.name}: gpus"
    if engine.gpus == 1:
        return
    if spec.backend != "sim":
        yield f"{where} is simulated only: our runtime computes on one GPU; use --backend sim or leave it out"
    elif spec.emulation.pace.reference_model is not None:
        yield f"{where} has no place beside emulation.pace.reference_model, which paces one GPU"
    elif spec.profile is not None or spec.hardware is None:
        yield f"{where} is not in a profile, which measured one GPU; name hardware: instead"
    elif not is_policy(engine.kind):
        yield f"{where} is for our own schedulers; engines of their own have options of their own"
    else:
        yield from _machine_problems(spec, machine_of(spec))
        yield from _model_problems(spec, load_config(spec.model))


def _machine_problems(spec: CellSpec, hardware: Hardware) -> Iterator[str]:
    has = hardware.peers.count if hardware.peers is not None else 1
    if spec.engine.gpus > has:
        said = "one; peers: in its file would describe others" if has == 1 else f"{has}"
        yield f"engine {spec.engine.name}: gpus: {spec.engine.gpus}, {hardware.name} has {said}"


def _model_problems(spec: CellSpec, model: ModelConfig) -> Iterator[str]:
    engine = spec.engine
    where, gpus = f"engine {engine.name}: parallel: {engine.parallel}", engine.gpus
    if engine.parallel == "tensor":
        if gpus > model.kv_heads:
            yield f"{where}: {gpus} GPUs share {model.kv_heads} KV heads of {model.name}; use fewer, or pipeline"
        return
    if gpus > model.layers:
        yield f"{where}: {gpus} GPUs share {model.layers} layers of {model.name}; use fewer"
    if engine.kind not in PIPELINED or make_engine(engine.kind, engine.options).uses_host_kv:
        yield f"{where} is for engines that keep no request's KV on the host; use tensor"
