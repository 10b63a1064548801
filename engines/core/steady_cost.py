"""What the steps of a stretch take: one plan over and over, its rows one token longer each time.

To the last bit what `makespan` says of each of the plans; but only attention is asked again, the rest depends on how
many rows there are.
"""

from collections.abc import Iterator

from engines.core.cost import CostTable, Work, work_of
from engines.core.ops import Op, OpKind
from engines.core.pipeline import lower, seconds_of, spanned
from engines.core.placement import Placement
from engines.core.types import StepPlan

GROWING = frozenset({OpKind.ATTENTION, OpKind.HOST_ATTENTION})


def works_of(plan: StepPlan, steps: int) -> Iterator[Work]:
    """Of each step's one batch, the plan's own first."""
    work = work_of(plan.batches[0])
    rows, kv, host_rows, host_kv = work.decode_rows, work.decode_kv_tokens, work.host_rows, work.host_kv_tokens
    for _ in range(steps):
        yield Work(work.tokens, rows, kv, host_rows, host_kv, sampled=work.sampled)
        kv += rows
        host_kv += host_rows


class SteadyCost:
    """Of one plan. Ask in the order of the steps."""

    def __init__(self, plan: StepPlan, placement: Placement, costs: CostTable) -> None:
        self.program = lower(plan, placement)
        work = work_of(plan.batches[0])
        self._costs = costs
        self._known = [seconds_of(op, work, (), costs) for op, _ in self.program.tally]
        self._growing = [(place, op) for place, (op, _) in enumerate(self.program.tally) if op.kind in GROWING]

    def step(self, work: Work) -> tuple[float, list[float]]:
        """Seconds of the whole step, busy seconds per unit."""
        known = self._known
        for place, op in self._growing:
            known[place] = seconds_of(op, work, (), self._costs)
        busy_s = self.program.busy(known)
        return spanned(self.program, known, busy_s, 0.0, None), busy_s

    def of_ops(self, works: list[Work]) -> Iterator[tuple[Op, int, list[float]]]:
        """Each kind of op, how many of it there are in a step, and what they take together in each of the steps."""
        growing = {place for place, _ in self._growing}
        for place, (op, count) in enumerate(self.program.tally):
            if place in growing:
                yield op, count, [count * seconds_of(op, work, (), self._costs) for work in works]
            else:
                yield op, count, [count * self._known[place]] * len(works)
