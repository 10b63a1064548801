"""A stretch: steps in which nothing is decided anew. Everybody decodes, nobody comes or goes, and the blocks that
growing rows will ask for are there; so a policy that says its decision stands need not be asked again, and an executor
that can tell what each of the steps takes (the simulator) need not be handed them one by one.

What such steps leave behind is the same, to the last bit, as if they had been taken one by one: `plan_of` gives the
plan of each. Not here: when a decision stands (policy.py), and what a step takes (backends/sim.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engines.core.cost import Work
from engines.core.request import Request
from engines.core.types import BlockChanges, StepPlan, Tier


class Growth(NamedTuple):
    """In the `step`th step of a stretch (from 1) this row (by its place among them) needs one more block."""

    step: int
    row: int


@dataclass(frozen=True, slots=True)
class Standing:
    """`plan` may be repeated for up to `steps` more steps, each row one token longer every time."""

    plan: StepPlan
    steps: int
    growths: Sequence[Growth]


@dataclass(frozen=True, slots=True)
class Repeats:
    """What the steps of a stretch took, as columns."""

    decided_s: list[float]  # what the clock said when each was decided
    started_s: list[float]
    ended_s: list[float]
    busy_s: list[Sequence[float]]  # of each step, in the order of `Unit`
    works: list[Work]
    ops: int  # of one step

    def add(self, decided_s: float, started_s: float, ended_s: float, busy_s: Sequence[float], work: Work) -> None:
        self.decided_s.append(decided_s)
        self.started_s.append(started_s)
        self.ended_s.append(ended_s)
        self.busy_s.append(busy_s)
        self.works.append(work)

    def __len__(self) -> int:
        return len(self.ended_s)


class Grown(NamedTuple):
    """A block that a row was given in a step of a stretch."""

    step: int
    slot: int
    block: int
    tier: Tier


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps that were taken like `plan`, the step before them."""

    plan: StepPlan
    repeats: Repeats
    grown: Sequence[Grown]
    request_ids: Sequence[int]  # of each step's rows, in its order
    on_host: Sequence[int]  # of them, whose KV is there
    running: int
    waiting: int
    blocks_used: Mapping[Tier, int]  # before the first

    def __len__(self) -> int:
        return len(self.repeats)

    def blocks_after(self, tier: Tier) -> list[int]:
        """In use after each step."""
        used = [self.blocks_used[tier]] * len(self)
        for given, each in enumerate([each for each in self.grown if each.tier is tier], 1):
            used[each.step - 1 :] = [self.blocks_used[tier] + given] * (len(self) - each.step + 1)
        return used

    def plan_of(self, step: int) -> StepPlan:
        """Of the `step`th, counted from 1."""
        [batch] = self.plan.batches
        grown = [each for each in self.grown if each.step == step]
        changes = BlockChanges((), (), tuple([each.slot for each in grown]), tuple([each.block for each in grown]))
        return StepPlan(self.plan.step + step, self.plan.mode, (batch.longer(step),), changes)


def standing(
    plan: StepPlan, rows: Sequence[Request], free: Mapping[Tier, int], page_tokens: Mapping[Tier, int]
) -> Standing:
    """As long as nobody ends and nobody has to make room. The step in which somebody ends is taken as ever."""
    steps = min([request.target - request.known for request in rows]) - 1
    growths = []
    for row, request in enumerate(rows):
        first = request.capacity - request.computed + 1
        if first <= steps:
            growths.extend([Growth(step, row) for step in range(first, steps + 1, page_tokens[request.tier])])
    growths.sort()
    left = dict(free)
    for growth in growths:
        tier = rows[growth.row].tier
        if not left[tier]:
            return Standing(plan, growth.step - 1, growths)
        left[tier] -= 1
    return Standing(plan, steps, growths)
