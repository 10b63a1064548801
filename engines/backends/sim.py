"""The simulator: the same plans, the same ops, no tensors. Ops are placed on virtual units with durations from a table.

It is also the debugger of `lower()`: whatever overlap a lowering expresses becomes visible here without any hardware.
"""

from collections.abc import Sequence

from engines.backends.op_times import OpSink, OpTally
from engines.core.clock import VirtualClock
from engines.core.cost import CostTable
from engines.core.pipeline import durations, lower, place
from engines.core.types import Capabilities, Placement, StepPlan, StepResult


class SimExecutor:
    def __init__(
        self,
        capabilities: Capabilities,
        placement: Placement,
        costs: CostTable,
        clock: VirtualClock,
        sink: OpSink | None = None,
    ) -> None:
        self._capabilities = capabilities
        self._placement = placement
        self._costs = costs
        self._clock = clock
        self._sink = sink
        self._last_end_s = 0.0

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
        ops = lower(plan, self._placement)
        seconds = durations(ops, plan, self._costs)
        ends_s = place(ops, seconds, begin_s)
        tally = OpTally(plan.step, self._sink)
        for op, duration_s, end_s in zip(ops, seconds, ends_s, strict=True):
            tally.add(op, end_s - duration_s, end_s)
        self._last_end_s = max(ends_s)
        self._clock.wait_until(self._last_end_s)
        sampled = sum(
            len(batch.decode_slots) + len(batch.host_slots) + sum(chunk.samples for chunk in batch.prefills)
            for batch in plan.batches
        )
        return StepResult((0,) * sampled, begin_s, self._last_end_s, tally.times())

    def close(self) -> None:
        """Nothing is held."""
