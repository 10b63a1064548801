"""Cohorts: host requests that go through the layers at a pace of their own, and may outlive a step.

A cohort is parked at a layer while the host computes its attention there. When the pass over the weights gets to that
layer and the attention is ready, its rows come aboard: they share the pass for the rest of that layer and the first
part of the next one, are handed to the host again, and are parked there. So a cohort advances by at least no layer and
at most all of them per step.
"""

from collections.abc import Sequence
from typing import Protocol

from engines.core.ops import OpKind
from engines.core.request import Request
from engines.core.types import STARTS, CohortPlan, Guard, GuardAnswer


class Cohort:
    """The scheduler's own record: who flies together, and at which layer they are parked. Slots and positions stay what
    they are at take-off: who flies is not moved, and yields no token before it lands.
    """

    __slots__ = ("cohort", "kv_tokens", "layer", "positions", "requests", "slots")

    def __init__(self, cohort: int, requests: Sequence[Request]) -> None:
        self.cohort = cohort
        self.requests = tuple(requests)
        self.slots = tuple([request.slot for request in requests])
        self.positions = tuple([request.computed for request in requests])
        self.kv_tokens = sum(self.positions) + len(self.positions)
        self.layer = STARTS

    def plan(self, patience_us: int) -> CohortPlan:
        return CohortPlan(self.cohort, self.slots, self.positions, self.layer, patience_us)


class PassRunner(Protocol):
    """What an interpreter does in a pass: compute it, or place it on a time line."""

    def gpu(self, kind: OpKind, layer: int, aboard: Sequence[CohortPlan]) -> None:
        """One op of the batch and of the rows that are aboard."""

    def ready(self, cohort: CohortPlan, layer: int) -> bool:
        """Whether its attention of this layer is back, or comes back within the cohort's patience."""

    def hand_over(self, cohort: CohortPlan, layer: int) -> None:
        """Its rows of this layer go to the host, which attends to them whenever it gets there."""


def run_pass(
    cohorts: Sequence[CohortPlan], layers: int, runner: PassRunner
) -> tuple[tuple[GuardAnswer, ...], tuple[int, ...]]:
    """One pass over the weights. Returns what was asked and answered, and which cohorts came to the end."""
    parked: dict[int, list[int]] = {}  # by layer, the places of those that are there
    for place, cohort in enumerate(cohorts):
        parked.setdefault(max(cohort.parked_layer, 0), []).append(place)
    starting = [cohort for cohort in cohorts if cohort.parked_layer == STARTS]
    answers: list[GuardAnswer] = []
    runner.gpu(OpKind.FIRST, 0, starting)
    for cohort in starting:
        runner.hand_over(cohort, 0)
    for layer in range(layers):
        runner.gpu(OpKind.ATTENTION, layer, ())
        aboard, moved_on = [], []
        for place in sorted(parked.get(layer, ())):
            cohort = cohorts[place]
            ready = runner.ready(cohort, layer)
            answers.append(GuardAnswer(Guard(cohort.cohort, layer), ready))
            if ready:
                aboard.append(cohort)
                moved_on.append(place)
        if layer == layers - 1:
            runner.gpu(OpKind.LAST, layer, aboard)
            return tuple(answers), tuple([cohort.cohort for cohort in aboard])
        runner.gpu(OpKind.BETWEEN, layer, aboard)
        for cohort in aboard:
            runner.hand_over(cohort, layer + 1)
        parked.setdefault(layer + 1, []).extend(moved_on)
    raise ValueError("a model has at least one layer")
