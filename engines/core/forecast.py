"""What a cost table says a step that has run would take: the same ops on a time line of its own.

Which cohort was ready is taken from what happened; the rest is the table's. So an error of this is an error of its
times.
"""

from engines.core.cohorts import run_pass
from engines.core.cost import CostTable
from engines.core.pass_line import HostLine, PassLine
from engines.core.pipeline import lower, makespan
from engines.core.placement import Placement
from engines.core.steady_cost import SteadyCost
from engines.core.stretch import Stretch
from engines.core.types import AWAITED, CohortPlan, GuardAnswer, StepPlan, StepResult


class Forecast:
    """Of the steps of one run, in their order: host and links may still be busy with what earlier ones left."""

    def __init__(self, costs: CostTable, placement: Placement) -> None:
        self._costs = costs
        self._placement = placement
        self._host = HostLine()

    def seconds(self, plan: StepPlan, result: StepResult) -> float:
        begin_s = result.started_s
        if plan.places is not None:
            self._placement = plan.places
        if not plan.cohorts:
            program = lower(plan, self._placement)
            seconds = makespan(program, plan, self._costs, begin_s, self._host.free_s)[0]
            _sooner(self._host, begin_s + seconds - result.ended_s)
            return seconds
        line = _Retold(plan, self._costs, self._host, begin_s)
        line.answers = list(reversed(result.answers))
        run_pass(plan.cohorts, len(self._placement.layers), line)
        _sooner(self._host, line.now_s - result.ended_s)
        return line.now_s - begin_s

    def each_of(self, stretch: Stretch) -> list[float]:
        """Of the steps of a stretch: one after the other, so that nobody is left busy."""
        cost = SteadyCost(stretch.plan, self._placement, self._costs)
        return [cost.step(work)[0] for work in stretch.repeats.works]


def _sooner(host: HostLine, late_s: float) -> None:
    """What is still under way as seen from when the step really ended: a table that is too slow errs in every step
    anew, and not by the sum of all steps before.
    """
    if late_s <= 0.0:
        return
    for unit in host.free_s:
        host.free_s[unit] -= late_s
    for cohort in host.back_s:
        host.back_s[cohort] -= late_s


class _Retold(PassLine):
    answers: list[GuardAnswer]

    def ready(self, cohort: CohortPlan, layer: int) -> bool:
        if not self.answers.pop().ready:
            self.now_s += max(cohort.patience_us, 0) * 1e-6
            return False
        patience_s = float("inf") if cohort.patience_us == AWAITED else cohort.patience_us * 1e-6
        until_s = self.now_s + patience_s
        _sooner(self._host, self.back_s(cohort) - until_s)  # it was back by then, whatever the table says
        self.now_s = max(self.now_s, min(self.back_s(cohort), until_s))
        return True
