"""What only real backends need: a model in memory, a core of its own for the emulated accelerator, the torch executor.

The one module of the harness that imports torch at the top; build.py imports it when a cell needs it.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from engines.apex import attention as native
from engines.backends.op_times import OpSink
from engines.backends.pacing import ModelledPace, NativePace, Pace
from engines.backends.torch_backend import TorchExecutor
from engines.core.clock import MonotonicClock
from engines.core.cost import CostTable
from engines.core.placement import Placement
from engines.core.types import Capabilities, Limits
from engines.model.config import load_config
from engines.model.decoder import Decoder
from engines.model.families import open_decoder
from engines.model.sampler import Sampling
from engines.model.weights import load_weights, random_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def claim_cores(count: int) -> tuple[int, ...]:
    """Pin the launching thread, which is the emulated accelerator, and give torch as many threads as it has cores.

    More OpenMP threads than cores run 2.8 times slower; later threads inherit the pin, so helpers set their own.
    """
    cores = tuple(sorted(os.sched_getaffinity(0))[:count])
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    return cores


def host_pool(threads: int, spare: Sequence[int]) -> native.Pool:
    """The host's attention threads, one per core that the launching thread leaves; on a machine with no such core, one
    wherever the system puts it: beside a launching thread that spins it would stand still on the same core.
    """
    if not spare:
        return native.Pool(1)
    count = min(threads, len(spare))
    return native.Pool(count, list(spare[:count]))


def claim_priority() -> bool:
    """Real-time priority for the launching thread, where the system allows it (root does).

    A paced accelerator sleeps between steps, and on a busy machine an ordinary sleeper wakes up to 4 ms late, longer
    than most ops; a real-time one does not. Not for native speed: a thread that never sleeps would be throttled.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return False
    return True


def has_priority() -> bool:
    """Of the calling thread."""
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO


def paced_clock(has_priority: bool) -> MonotonicClock:
    """Without priority the thread keeps its core by never sleeping: the core is the accelerator's anyway."""
    return MonotonicClock() if has_priority else MonotonicClock(spin_s=math.inf)


def open_model(
    name_or_folder: str, dtype: str, backend: str, seed: int, longest_request_tokens: int, warm_rows: int
) -> Decoder:
    """A folder's weights, or seeded random ones of a named shape; batches of up to `warm_rows` rows compile nothing."""
    config = load_config(name_or_folder)
    device = "cuda" if backend == "cuda" else "cpu"
    is_folder = Path(name_or_folder).is_dir()
    weights = (
        load_weights(name_or_folder, config, DTYPES[dtype], device)
        if is_folder
        else random_weights(config, seed, DTYPES[dtype], device)
    )
    model = open_decoder(config, weights, max_positions=min(config.max_positions, longest_request_tokens))
    if warm_rows:
        with torch.inference_mode():
            model.warm_up(warm_rows)
    return model


def torch_executor(
    model: Decoder,
    capabilities: Capabilities,
    placement: Placement,
    limits: Limits,
    clock: MonotonicClock,
    costs: CostTable | None,
    backend: str,
    sink: OpSink | None = None,
    sampling: Mapping[str, Any] = MappingProxyType({}),
    pool: native.Pool | None = None,
) -> tuple[TorchExecutor, dict[str, object]]:
    """The executor and what it resolved. With `costs` every op is paced to them, without it runs at full speed."""
    pace: Pace = ModelledPace(clock, costs, sink) if costs is not None else NativePace(clock, sink)
    device = torch.device("cuda" if backend == "cuda" else "cpu")
    executor = TorchExecutor(
        model, capabilities, placement, pace, limits.max_batch, device, model.dtype, Sampling(**sampling), pool
    )
    attention = "torch paged gather + SDPA" if device.type == "cuda" else f"C++ paged ({native.get_isa()})"
    return executor, {
        "attention": attention,
        "device": device.type,
        "torch": torch.__version__,
        "pace": "paced" if costs is not None else "native",
        **({} if pool is None else {"cpu_threads": pool.threads}),
        "real_time_priority": has_priority(),
    }
