"""The simulator: the same plans, the same ops, no tensors. Ops are placed on virtual units with durations from a table.

It is also the debugger of `lower()`: whatever overlap a lowering expresses becomes visible here without any hardware.
"""

from collections.abc import Sequence

from engines.backends.op_times import OpSink, OpTally, unit_times
from engines.core.clock import VirtualClock
from engines.core.cost import CostTable
from engines.core.pipeline import Program, durations, lower, makespan, place
from engines.core.types import Capabilities, Placement, StepPlan, StepResult, UnitTimes


class SimExecutor:
    def __init__(
        self,
        capabilities: Capabilities,
        placement: Placement,
        costs: CostTable,
        clock: VirtualClock,
        sink: OpSink | None = None,
        traced_steps: int = 200,
    ) -> None:
        self._capabilities = capabilities
        self._placement = placement
        self._costs = costs
        self._clock = clock
        self._sink = sink
        self._traced_steps = traced_steps
        self._last_end_s = 0.0  # what its tokens cost afterwards included

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def register(self, request_id: int, prompt_token_ids: Sequence[int]) -> None:
        """Token ids do not matter here: lengths come from the workload."""

    def forget(self, request_id: int) -> None:
        """Nothing is kept."""

    def run(self, plan: StepPlan) -> StepResult:
        # Deciding and launching cost time as well: a step begins no earlier than one overhead after the last one ended.
        begin_s = max(self._last_end_s + self._costs.step_overhead_s, self._clock.now())
        program = lower(plan, self._placement)
        if self._sink is not None and plan.step <= self._traced_steps:
            end_s, times = self._traced(program, plan, begin_s)
        else:
            seconds, busy_s = makespan(program, plan, self._costs)
            end_s, times = begin_s + seconds, unit_times(busy_s, len(program.ops), 0)
        self._clock.wait_until(end_s)
        sampled = sum(
            len(batch.decode_slots) + len(batch.host_slots) + sum([chunk.samples for chunk in batch.prefills])
            for batch in plan.batches
        )
        self._last_end_s = end_s + sampled * self._costs.token_overhead_s
        return StepResult((0,) * sampled, begin_s, end_s, times)

    def _traced(self, program: Program, plan: StepPlan, begin_s: float) -> tuple[float, UnitTimes]:
        """Op by op, for the timeline."""
        seconds = durations(program, plan, self._costs)
        ends_s = place(program, seconds, begin_s)
        tally = OpTally(plan.step, self._sink)
        for op, duration_s, end_s in zip(program.ops, seconds, ends_s, strict=True):
            tally.add(op, end_s - duration_s, end_s)
        return max(ends_s), tally.times()

    def close(self) -> None:
        """Nothing is held."""
