"""What the simulator says of many ops at once is what its time line says of each."""

from collections import defaultdict
from collections.abc import Sequence

import pytest

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.cost import Work, work_of
from engines.core.ops import Op, OpKind
from engines.core.types import AWAITED, STARTS, Batch, BlockChanges, CohortPlan, Mode, PrefillChunk, StepPlan, Tier
from tests.backends.plans import BACK, COSTS, DECODES, OUT, PLACEMENT, PLANS, Trace, plan
from tests.core.worlds import capabilities

CAPS = capabilities(64, 8)
STAGED = Batch((), (), (PrefillChunk(2, 7, 10, 20, True, Tier.HOST),))


class Sums:
    """Ops and seconds of each kind; rows and KV tokens of cohorts."""

    def __init__(self) -> None:
        self.ops: dict[OpKind, int] = defaultdict(int)
        self.seconds: dict[OpKind, float] = defaultdict(float)
        self.host_kv_tokens = 0
        self.host_rows = 0

    def alike(self, op: Op, count: int, seconds: float, work: Work) -> None:
        self.ops[op.kind] += count
        self.seconds[op.kind] += seconds
        if op.kind is OpKind.HOST_ATTENTION:
            self.host_kv_tokens += count * work.host_kv_tokens
            self.host_rows += count * work.host_rows


def passed(batch: Batch, *cohorts: CohortPlan, step: int = 1) -> StepPlan:
    return StepPlan(step, Mode.ASYNC_OVERLAP, (batch,), BlockChanges(), (OUT, BACK), cohorts)


def run(plans: Sequence[StepPlan], traced_steps: int = 200) -> tuple[Sums, Sums, Trace]:
    """Told in sums, and summed from the time line."""
    told, summed, trace = Sums(), Sums(), Trace()
    executor = SimExecutor(CAPS, PLACEMENT, COSTS, VirtualClock(), trace, traced_steps, told.alike)
    for each in plans:
        executor.run(each)
    for _, op, start_s, end_s in trace.rows:
        summed.alike(op, 1, end_s - start_s, Work())
    return told, summed, trace


@pytest.mark.parametrize("planned", PLANS.values(), ids=PLANS)
def test_a_program(planned: StepPlan) -> None:
    told, summed, _ = run([planned])
    assert told.ops == summed.ops
    assert told.seconds == pytest.approx(summed.seconds)
    untraced, _, trace = run([planned], traced_steps=0)
    assert not trace.rows
    assert untraced.ops == told.ops
    assert untraced.seconds == told.seconds


@pytest.mark.parametrize("batch", [DECODES, STAGED, Batch()], ids=["decodes", "prompt for the host", "cohorts alone"])
def test_passes_whose_cohorts_come_aboard_when_they_are_ready(batch: Batch) -> None:
    """The second pass finds one of them ready at its layer or not, and the third too."""
    near, far, idle = (5,), (20_000,), (7,)
    plans = [
        passed(batch, CohortPlan(1, (4,), near, STARTS), CohortPlan(2, (5, 6), (90, 91), STARTS, AWAITED)),
        passed(batch, CohortPlan(1, (4,), near, 1), CohortPlan(3, (7,), far, STARTS), step=2),
        passed(batch, CohortPlan(1, (4,), near, 1, AWAITED), CohortPlan(3, (7,), far, 0), step=3),
        passed(batch, CohortPlan(4, (8,), idle, STARTS, AWAITED), step=4),
    ]
    told, summed, trace = run(plans)
    assert dict(told.ops) == dict(summed.ops)
    assert told.seconds == pytest.approx(summed.seconds)
    tokens = {1: 6, 2: 183, 3: 20_001, 4: 8}
    rows = {1: 1, 2: 2, 3: 1, 4: 1}
    attended = [op.guard.cohort for _, op, _, _ in trace.rows if op.kind is OpKind.HOST_ATTENTION and op.guard]
    assert told.host_rows == sum(rows[cohort] for cohort in attended)
    assert told.host_kv_tokens == sum(tokens[cohort] for cohort in attended)
    assert {op.guard.cohort for _, op, _, _ in trace.rows if op.guard} == {1, 2, 3, 4}


def test_each_of_many_worked_on_the_same_rows() -> None:
    seen: list[Work] = []
    executor = SimExecutor(CAPS, PLACEMENT, COSTS, VirtualClock(), alike=lambda op, n, s, work: seen.append(work))
    executor.run(plan(DECODES))
    assert set(seen) == {work_of(DECODES)}
    assert seen[0].decode_kv_tokens == 300
