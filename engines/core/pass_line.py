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
        self.free_s = dict.fromkeys(Unit, 0.0)
        self.back_s: dict[int, float] = {}


class PassLine:
    """`PassRunner` without the work. `now_s` is how far the accelerator has come."""

    def __init__(self, plan: StepPlan, costs: CostTable, host: HostLine, begin_s: float, report: OpReport) -> None:
        self.now_s = begin_s
        self._costs = costs
        self._host = host
        self._report = report
        self._work = work_of(plan.batches[0])
        self._ops = 0
        self._staged_s = self._reloaded_s = begin_s
        for index, move in enumerate(plan.moves):
            op = Op(index, OpKind.MOVE, link_unit(move), -1, (), move=index)
            self.now_s = self._occupy(op, self.now_s, costs.move_s(move))

    def gpu(self, kind: OpKind, layer: int, aboard: Sequence[CohortPlan]) -> None:
        work = self._work
        if kind is OpKind.ATTENTION:
            self.now_s = max(self.now_s, self._reloaded_s)
        elif kind is not OpKind.FIRST:
            self.now_s = max(self.now_s, self._staged_s)
        seconds = self._seconds(kind, sum([len(cohort.slots) for cohort in aboard]))
        if seconds > 0.0:
            self.now_s = self._occupy(self._op(kind, Unit.GPU, layer), self.now_s, seconds)
        made = 0 if kind is OpKind.FIRST else layer + 1
        if kind in (OpKind.FIRST, OpKind.BETWEEN):
            if work.host_prefill_tokens:
                op = self._op(OpKind.PROMPT_TO_HOST, Unit.D2H, made)
                self._staged_s = self._occupy(op, self.now_s, self._costs.kv_to_host_s(work.host_prefill_tokens))
            if work.host_prefill_context:
                op = self._op(OpKind.PROMPT_TO_ACCEL, Unit.H2D, made)
                self._reloaded_s = self._occupy(op, self.now_s, self._costs.kv_to_accel_s(work.host_prefill_context))

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
        rows = len(cohort.slots)
        guard = Guard(cohort.cohort, layer)
        costs, at_s = self._costs, self.now_s
        for kind, unit, seconds in (
            (OpKind.ROWS_TO_HOST, Unit.D2H, costs.rows_to_host_s(rows)),
            (OpKind.HOST_ATTENTION, Unit.CPU, costs.host_attention_s(rows, sum(cohort.positions) + rows)),
            (OpKind.ROWS_TO_ACCEL, Unit.H2D, costs.rows_to_accel_s(rows)),
        ):
            at_s = self._occupy(self._op(kind, unit, layer, guard), at_s, seconds)
        self._host.back_s[cohort.cohort] = at_s

    def ended(self, op: Op, end_s: float) -> float:
        """When an op that should end at `end_s` does; on a time line that nothing real stands behind, then."""
        return end_s

    def _occupy(self, op: Op, after_s: float, seconds: float) -> float:
        free_s = self._host.free_s
        start_s = after_s if op.unit is Unit.GPU else max(after_s, free_s[op.unit])
        due_s = start_s + seconds
        end_s = self.ended(op, due_s)
        free_s[op.unit] = end_s
        self._report(op, start_s, end_s, end_s > due_s)
        return end_s

    def _op(self, kind: OpKind, unit: Unit, layer: int, guard: Guard | None = None) -> Op:
        self._ops += 1
        return Op(self._ops, kind, unit, layer, (), guard=guard)

    def _seconds(self, kind: OpKind, aboard: int) -> float:
        work, costs = self._work, self._costs
        if kind is OpKind.ATTENTION:
            return costs.accel_attention_s(work)
        rows = costs.gemm_rows(work) + aboard
        if not rows:
            return 0.0
        if kind is OpKind.FIRST:
            return costs.pre_attention_s(rows)
        if kind is OpKind.BETWEEN:
            return costs.linear_s(rows)
        return costs.post_attention_s(rows) + costs.head_s(work.sampled + aboard)
