"""`harness bench scheduler`: what one decision costs. 256 running requests at context 1500, decide and commit, no GPU.

The time is real, the machine below the plan is not: the executor is replaced by a ready-made result, so that nothing
but the scheduler core and the policy is measured.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np

from engines.core.clock import stopwatch
from engines.core.cost import MachineRates, ModelCosts, Roofline
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, RequestSpec, StepResult, TierCapacity
from engines.gpu_only.policy import GpuOnly

GOAL_S = 150e-6


@dataclass(frozen=True, slots=True)
class SchedulerTiming:
    engine: str
    running: int
    context_tokens: int
    steps: int
    median_s: float
    p99_s: float
    goal_median_s: float = GOAL_S


def measure(running: int = 256, context_tokens: int = 1500, steps: int = 2000) -> SchedulerTiming:
    core = _core(running, context_tokens + steps)
    for request_id in range(running):
        core.submit(RequestSpec(request_id, context_tokens - steps // 2, 2 * steps))
    _prefill(core)
    samples = np.empty(steps)
    for index in range(steps):
        begin = stopwatch()
        plan = core.schedule(0.0)
        assert plan is not None
        result = StepResult(tuple(range(len(plan.batches[0].decode_slots))), 0.0, 0.0)
        core.commit(plan, result)
        samples[index] = stopwatch() - begin
    return SchedulerTiming(
        "gpu_only", running, context_tokens, steps, float(np.median(samples)), float(np.quantile(samples, 0.99))
    )


def main(as_json: bool) -> None:
    timing = measure()
    if as_json:
        print(json.dumps({"rows": [asdict(timing)]}))
        return
    print(
        f"{timing.engine}: decide + commit, {timing.running} running at context {timing.context_tokens}: "
        f"median {timing.median_s * 1e6:.0f} us, p99 {timing.p99_s * 1e6:.0f} us over {timing.steps} steps "
        f"(goal: median <= {timing.goal_median_s * 1e6:.0f} us)"
    )


def _core(running: int, tokens_each: int) -> EngineCore:
    blocks = running * (-(-2 * tokens_each // 16))
    capabilities = Capabilities(32, TierCapacity(blocks, 16), TierCapacity(0, 256))
    model = ModelCosts(32, 1, 1, 1, 2.0, 1, 1, 1)
    machine = MachineRates(1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0)
    return EngineCore(GpuOnly(), capabilities, Limits(running, 8192), Roofline(model, machine))


def _prefill(core: EngineCore) -> None:
    """Until a step holds nothing but decodes."""
    while True:
        plan = core.schedule(0.0)
        assert plan is not None
        batch = plan.batches[0]
        samples = len(batch.decode_slots) + sum(chunk.samples for chunk in batch.prefills)
        core.commit(plan, StepResult((0,) * samples, 0.0, 0.0))
        if not batch.prefills and len(batch.decode_slots) == core.limits.max_batch:
            return
