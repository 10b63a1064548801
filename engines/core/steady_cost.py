"""What the steps of a stretch take: one plan over and over, its rows one token longer each time.

To the last bit what `makespan` says of each of the plans, of which each op waits for the one before; but only attention
is asked again, the rest depends on how many rows there are.
"""

from collections.abc import Iterator

from engines.core.cost import CostTable, Work, work_of
from engines.core.ops import Op, OpKind
from engines.core.pipeline import lower, price_of, seconds_of
from engines.core.placement import Placement
from engines.core.types import StepPlan, Unit

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
        self._costs = costs = costs if self.program.beside else costs.alone
        tally = self.program.tally
        self._terms_s = [count * seconds_of(op, work, (), costs) for op, count in tally]
        self._units = [op.unit for op, _ in tally]
        self._growing = [(place, price_of(op), count) for place, (op, count) in enumerate(tally) if op.kind in GROWING]
        self._grown_s: dict[int, list[float]] = {place: [] for place, _, _ in self._growing}

    def step(self, work: Work) -> tuple[float, list[float]]:
        """Seconds of the whole step, in which nothing overlaps; busy seconds per unit."""
        terms_s = self._terms_s
        for place, price, count in self._growing:
            terms_s[place] = term_s = count * price(work, (), self._costs)
            self._grown_s[place].append(term_s)
        busy_s = [0.0] * len(Unit)
        for unit, term_s in zip(self._units, terms_s, strict=True):
            busy_s[unit] += term_s
        return sum(busy_s), busy_s

    def of_ops(self) -> Iterator[tuple[Op, int, list[float]]]:
        """Each kind of op, how many of it there are in a step, and what they took together in each of the steps."""
        steps = max([len(taken_s) for taken_s in self._grown_s.values()], default=0)
        for place, (op, count) in enumerate(self.program.tally):
            yield op, count, self._grown_s.get(place) or [self._terms_s[place]] * steps
