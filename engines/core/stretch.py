"""A stretch: steps in which nothing is decided anew. Everybody decodes, nobody comes or goes before the last of them,
and the blocks that growing rows will ask for are there. A policy that knows its answer then need not be asked, and
an executor that can tell what each of the steps takes (the simulator) need not be handed them one by one.

What such steps leave behind is the same, to the last bit, as if they had been taken one by one: `plan_of` gives the
plan of each. Not here: when a policy knows its answer (policy.py), and what a step takes (backends/sim.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from engines.core.cost import Work
from engines.core.request import Request
from engines.core.types import Batch, BlockChanges, Mode, StepPlan, Tier


class Growth(NamedTuple):
    """In the `step`th step of a stretch (from 1) this row (by its place among them) needs one more block."""

    step: int
    row: int


@dataclass(frozen=True, slots=True)
class Standing:
    """`plan` is the next step's but for blocks given in it, and may be taken up to `steps` times, each row one token
    longer every time; in the last of all somebody may end."""

    plan: StepPlan
    rows: Sequence[Request]  # in the order of its batch
    steps: int
    full: Sequence[int]  # in which step, from 1, each row needs its next block
    page_tokens: Mapping[Tier, int]

    def growths(self, steps: int) -> list[Growth]:
        """In the first so many steps: most stretches end long before they have to."""
        pages, found = self.page_tokens, []
        for row, first in enumerate(self.full):
            if first <= steps:
                found.extend([Growth(step, row) for step in range(first, steps + 1, pages[self.rows[row].tier])])
        found.sort()
        return found


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


class Standings(NamedTuple):
    """What an onlooker counts after a step."""

    running: int
    waiting: int
    blocks_used: Mapping[Tier, int]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps that were taken; `plan` is the first one's but for blocks given in it."""

    plan: StepPlan
    repeats: Repeats
    grown: Sequence[Grown]
    request_ids: Sequence[int]  # of each step's rows, in its order
    on_host: Sequence[int]  # of them, whose KV is there
    finished: Sequence[int]  # in the last step
    before: Standings
    after: Standings

    def __len__(self) -> int:
        return len(self.repeats)

    def running(self) -> list[int]:
        """After each step."""
        return [self.before.running] * (len(self) - 1) + [self.after.running]

    def blocks_used(self, tier: Tier) -> list[int]:
        """After each step."""
        used = self.before.blocks_used[tier]
        counts = [used] * len(self)
        for each in self.grown:
            if each.tier is tier:
                used += 1
                counts[each.step - 1 :] = [used] * (len(self) - each.step + 1)
        counts[-1] = self.after.blocks_used[tier]
        return counts

    def plan_of(self, step: int) -> StepPlan:
        """Of the `step`th, counted from 1."""
        [batch] = self.plan.batches
        grown = [each for each in self.grown if each.step == step]
        ends = self.plan.changes.ends if step == 1 else ()
        changes = BlockChanges(ends, (), tuple([each.slot for each in grown]), tuple([each.block for each in grown]))
        return replace(self.plan, step=self.plan.step + step - 1, batches=(batch.longer(step - 1),), changes=changes)


def standing(
    step: int,
    mode: Mode,
    ends: Sequence[int],
    running: Sequence[Request],
    free: Mapping[Tier, int],
    page_tokens: Mapping[Tier, int],
) -> Standing:
    """Until somebody ends, or would have to make room for somebody else."""
    accelerator = Tier.ACCEL
    accel = [request for request in running if request.tier is accelerator]
    host = [] if len(accel) == len(running) else [each for each in running if each.tier is not accelerator]
    batch = Batch(
        tuple([request.slot for request in accel]),
        tuple([request.computed for request in accel]),
        (),
        tuple([request.slot for request in host]),
        tuple([request.computed for request in host]),
    )
    plan, rows = StepPlan(step, mode, (batch,), BlockChanges(tuple(ends))), accel + host
    steps = min([request.target - request.known for request in rows])
    full = [request.capacity - request.computed + 1 for request in rows]
    stands = Standing(plan, rows, steps, full, page_tokens)
    tiers = {request.tier for request in rows}
    smallest = min([page_tokens[tier] for tier in tiers])
    at_most = sum([(steps - first) // smallest + 1 for first in full if first <= steps])
    if at_most <= min([free[tier] for tier in tiers]):  # no need to look when who needs one
        return stands
    left = dict(free)
    for growth in stands.growths(steps):
        tier = rows[growth.row].tier
        if not left[tier]:
            return replace(stands, steps=growth.step - 1)
        left[tier] -= 1
    return stands
