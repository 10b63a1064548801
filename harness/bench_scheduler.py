"""`harness bench scheduler`: what one decision costs, without a GPU: gpu_only with 256 running requests, the hybrids
with 256 on the accelerator and 512 on the host.

The time is real, the machine below the plan is not: a simulator answers, and only deciding and committing is timed.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from engines.apex.policy import Apex
from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock, stopwatch
from engines.core.policy import Policy
from engines.core.roofline import Roofline
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, RequestSpec, TierCapacity
from engines.gpu_only.policy import GpuOnly
from engines.neo.policy import Neo
from harness.sizing import HOST_PAGE_TOKENS
from harness.steady import Machine

GOAL_S = 150e-6
HYBRID_GOAL_S = 300e-6
ACCEL_PAGE = 16


@dataclass(frozen=True, slots=True)
class Load:
    policy: Policy
    running: int
    host: int  # of them
    context_tokens: int
    steps: int
    goal_s: float


@dataclass(frozen=True, slots=True)
class SchedulerTiming:
    engine: str
    running: int
    host: int
    context_tokens: int
    steps: int
    median_s: float
    p99_s: float
    goal_median_s: float = GOAL_S


LOADS = (
    Load(GpuOnly(), 256, 0, 1500, 2000, GOAL_S),
    Load(Neo(), 768, 512, 1500, 300, HYBRID_GOAL_S),
    Load(Apex(), 768, 512, 1500, 300, HYBRID_GOAL_S),
)


def measure(load: Load) -> SchedulerTiming:
    costs = Machine("t4_g4dn_4xlarge").itself()  # what a policy believes decides how much it considers
    core = _core(load, costs)
    executor = SimExecutor(core.capabilities, core.placement, costs, VirtualClock())
    for request_id in range(load.running):
        core.submit(RequestSpec(request_id, load.context_tokens - load.steps // 2, 2 * load.steps))
    for _ in _steps(core, executor):
        if not core.waiting and all(request.pending == 1 for request in core.running):
            break
    timed = zip(_steps(core, executor), range(load.steps), strict=False)
    samples = np.array([seconds for seconds, _ in timed])
    return SchedulerTiming(
        load.policy.name,
        load.running,
        load.host,
        load.context_tokens,
        load.steps,
        float(np.median(samples)),
        float(np.quantile(samples, 0.99)),
        load.goal_s,
    )


def _steps(core: EngineCore, executor: SimExecutor) -> Iterator[float]:
    """Seconds of deciding and committing, step after step."""
    while True:
        begin = stopwatch()
        plan = core.schedule(0.0)
        decided = stopwatch()
        assert plan is not None
        result = executor.run(plan)
        answered = stopwatch()
        core.commit(plan, result)
        yield stopwatch() - answered + decided - begin


def main(as_json: bool) -> None:
    timings = [measure(load) for load in LOADS]
    if as_json:
        print(json.dumps({"rows": [asdict(timing) for timing in timings]}))
        return
    for timing in timings:
        print(
            f"{timing.engine}: decide + commit, {timing.running} running ({timing.host} on the host) at context "
            f"{timing.context_tokens}: median {timing.median_s * 1e6:.0f} us, p99 {timing.p99_s * 1e6:.0f} us over "
            f"{timing.steps} steps (goal: median <= {timing.goal_median_s * 1e6:.0f} us)"
        )


def _core(load: Load, costs: Roofline) -> EngineCore:
    """The accelerator's blocks hold its own share at the context named, half-way through; the host holds everybody."""
    on_accel = load.running - load.host
    accel_tokens = load.context_tokens if load.host else load.context_tokens + 2 * load.steps
    tokens_each = load.context_tokens + 2 * load.steps
    capabilities = Capabilities(
        32,
        TierCapacity(on_accel * -(-accel_tokens // ACCEL_PAGE), ACCEL_PAGE),
        TierCapacity(load.host * -(-tokens_each // HOST_PAGE_TOKENS), HOST_PAGE_TOKENS),
    )
    return EngineCore(load.policy, capabilities, Limits(load.running, 8192), costs)
