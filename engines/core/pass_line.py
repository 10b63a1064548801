"""A pass with cohorts on the time line: when each op begins and ends, and which cohort is back when it is asked for.

The simulator's passes are this and nothing else; the paced emulation adds the real work and its lateness. Host
attention outlives the pass that submitted it, so what host and links are busy with is kept from step to step
(`HostLine`).
"""

from collections.abc import Callable, Sequence

from engines.core.cost import CostTable, link_unit, work_of
from engines.core.ops import Op, OpKind
from engines.core.types import AWAITED, CohortPlan, Guard, StepPlan, Unit

OpReport = Callable[[Op, float, float, bool], None]  # op, start, end, whether it is late


class HostLine:
    """Until when the units beside the accelerator are busy, and when each parked cohort's attention is back."""

    __slots__ = ("back_s", "free_s")

    def __init__(self) -> None:
        self.free_s: dict[int, float] = dict.fromkeys(Unit, 0.0)
        self.back_s: dict[int, float] = {}


class PassLine:
    """`PassRunner` without the work. `now_s` is how far the accelerator has come.

    Without `report` nobody is told of single ops, of which there are hundreds: they are only added up.
    """

    def __init__(
        self, plan: StepPlan, costs: CostTable, host: HostLine, begin_s: float, report: OpReport | None = None
    ) -> None:
        self.now_s = begin_s
        self.ops = 0
        self.busy_s = [0.0] * len(Unit)  # if nobody is told of ops
        self._costs = costs
        self._host = host
        self._report = report
        self._work = work_of(plan.batches[0])
        self._own_rows = costs.gemm_rows(self._work)
        self._attention_s = costs.accel_attention_s(self._work)
        self._between_s: dict[int, float] = {}  # by rows aboard
        self._trips_s: dict[int, tuple[float, float, float]] = {}  # of each cohort: down, attention, up
        self._staged_s = self._reloaded_s = begin_s
        for index, move in enumerate(plan.moves):
            op = Op(index, OpKind.MOVE, link_unit(move), -1, (), move=index)
            self.now_s = self._occupy(op.kind, op.unit, -1, self.now_s, costs.move_s(move), op)

    def gpu(self, kind: OpKind, layer: int, aboard: Sequence[CohortPlan]) -> None:
        work = self._work
        if kind is OpKind.ATTENTION:
            self.now_s = max(self.now_s, self._reloaded_s)
        elif kind is not OpKind.FIRST:
            self.now_s = max(self.now_s, self._staged_s)
        seconds = self._seconds(kind, sum([len(cohort.slots) for cohort in aboard]) if aboard else 0)
        if seconds > 0.0:
            self.now_s = self._occupy(kind, Unit.GPU, layer, self.now_s, seconds)
        if work.host_prefill_tokens and kind in (OpKind.FIRST, OpKind.BETWEEN):
            self._stage(0 if kind is OpKind.FIRST else layer + 1)

    def back_s(self, cohort: CohortPlan) -> float:
        """When its attention is back on the accelerator."""
        return self._host.back_s[cohort.cohort]

    def ready(self, cohort: CohortPlan, layer: int) -> bool:
        back_s = self.back_s(cohort)
        if cohort.patience_us != AWAITED and back_s > self.now_s + cohort.patience_us * 1e-6:
            self.now_s += cohort.patience_us * 1e-6  # nobody knows beforehand that waiting is in vain
            return False
        self.now_s = max(self.now_s, back_s)
        return True

    def hand_over(self, cohort: CohortPlan, layer: int) -> None:
        number = cohort.cohort
        down_s, attention_s, up_s = self._trips_s.get(number) or self._trip(cohort)
        at_s = self._occupy(OpKind.ROWS_TO_HOST, Unit.D2H, layer, self.now_s, down_s, number)
        at_s = self._occupy(OpKind.HOST_ATTENTION, Unit.CPU, layer, at_s, attention_s, number)
        self._host.back_s[number] = self._occupy(OpKind.ROWS_TO_ACCEL, Unit.H2D, layer, at_s, up_s, number)

    def ended(self, op: Op, end_s: float) -> float:
        """When an op that should end at `end_s` does; on a time line that nothing real stands behind, then."""
        return end_s

    def _stage(self, layer: int) -> None:
        """KV of host-bound prompt rows, and that of their earlier chunks."""
        work, costs = self._work, self._costs
        leaving_s = costs.kv_to_host_s(work.host_prefill_tokens)
        self._staged_s = self._occupy(OpKind.PROMPT_TO_HOST, Unit.D2H, layer, self.now_s, leaving_s)
        if work.host_prefill_context:
            returning_s = costs.kv_to_accel_s(work.host_prefill_context)
            self._reloaded_s = self._occupy(OpKind.PROMPT_TO_ACCEL, Unit.H2D, layer, self.now_s, returning_s)

    def _trip(self, cohort: CohortPlan) -> tuple[float, float, float]:
        rows, costs = len(cohort.slots), self._costs
        attention_s = costs.host_attention_s(rows, sum(cohort.positions) + rows)
        trip_s = self._trips_s[cohort.cohort] = costs.rows_to_host_s(rows), attention_s, costs.rows_to_accel_s(rows)
        return trip_s

    def _occupy(self, kind: OpKind, unit: Unit, layer: int, after_s: float, seconds: float, of: int | Op = -1) -> float:
        """`of`: the cohort's number, if it is one's, or the op itself."""
        free_s = self._host.free_s
        start_s = after_s if unit is Unit.GPU or after_s > free_s[unit] else free_s[unit]
        end_s = start_s + seconds
        self.ops += 1
        if self._report is None:
            self.busy_s[unit] += end_s - start_s
        else:
            op = of if isinstance(of, Op) else Op(self.ops, kind, unit, layer, (), guard=_guard(of, layer))
            due_s, end_s = end_s, self.ended(op, end_s)
            self._report(op, start_s, end_s, end_s > due_s)
        free_s[unit] = end_s
        return end_s

    def _seconds(self, kind: OpKind, aboard: int) -> float:
        if kind is OpKind.ATTENTION:
            return self._attention_s
        if kind is OpKind.BETWEEN and aboard in self._between_s:
            return self._between_s[aboard]
        work, costs = self._work, self._costs
        rows = self._own_rows + aboard
        if not rows:
            return 0.0
        if kind is OpKind.FIRST:
            return costs.pre_attention_s(rows)
        if kind is OpKind.BETWEEN:
            seconds = self._between_s[aboard] = costs.linear_s(rows)
            return seconds
        return costs.post_attention_s(rows) + costs.head_s(work.sampled + aboard)


def _guard(cohort: int, layer: int) -> Guard | None:
    return None if cohort < 0 else Guard(cohort, layer)
