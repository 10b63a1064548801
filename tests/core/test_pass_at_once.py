"""The simulator's pass says to the last bit what `run_pass` does over a `PassLine`, pass after pass."""

from hypothesis import given
from hypothesis import strategies as st

from engines.core.cohorts import run_pass
from engines.core.pass_at_once import PassAtOnce
from engines.core.pass_line import HostLine, PassLine
from engines.core.types import AWAITED, STARTS, Batch, BlockChanges, CohortPlan, Mode, PrefillChunk, StepPlan, Tier
from tests.backends.plans import BACK, COSTS, OUT

LAYERS = 5
CHUNKS = st.builds(
    lambda start, length, tier: PrefillChunk(9, 9, start, length, True, tier),
    st.sampled_from([0, 300]),
    st.integers(1, 2000),
    st.sampled_from([Tier.ACCEL, Tier.HOST]),
)
BATCHES = st.builds(
    lambda positions, chunks: Batch(tuple(range(len(positions))), tuple(positions), tuple(chunks)),
    st.lists(st.integers(1, 3000), max_size=4),
    st.lists(CHUNKS, max_size=2),
)
CONTEXTS = st.lists(st.integers(1, 5000), min_size=1, max_size=5)
PATIENCE_US = st.sampled_from([0, 0, 50, 5000, AWAITED])
MOVES = st.sampled_from([(), (OUT,), (OUT, BACK)])
STEPS = st.tuples(BATCHES, st.lists(st.tuples(CONTEXTS, PATIENCE_US), max_size=3), MOVES)


@given(st.lists(STEPS, min_size=1, max_size=6))
def test_the_same_to_the_last_bit(steps: list[tuple[Batch, list[tuple[list[int], int]], tuple[object, ...]]]) -> None:
    at_once, one_by_one = HostLine(), HostLine()
    flying: dict[int, CohortPlan] = {}
    now_s, number = 0.0, 0
    for step, (batch, starting, moves) in enumerate(steps, 1):
        for contexts, patience_us in starting:
            number += 1
            flying[number] = CohortPlan(number, tuple(range(len(contexts))), tuple(contexts), STARTS, patience_us)
        if not flying:
            continue
        plan = StepPlan(step, Mode.FULL_OVERLAP, (batch,), BlockChanges(), moves, tuple(flying.values()))  # type: ignore[arg-type]
        line = PassLine(plan, COSTS, one_by_one, now_s)
        answers, finished = run_pass(plan.cohorts, LAYERS, line)
        quick = PassAtOnce(plan, LAYERS, COSTS, at_once, now_s)
        assert quick.run() == (answers, finished)
        assert (quick.now_s, quick.busy_s, quick.ops) == (line.now_s, line.busy_s, line.ops)
        assert at_once.free_s == one_by_one.free_s
        assert {each: at_once.back_s[each] for each in flying} == {each: one_by_one.back_s[each] for each in flying}
        layers = {each.cohort: max(each.parked_layer, 0) for each in flying.values()}
        for answer in answers:
            layers[answer.guard.cohort] += answer.ready
        flying = {
            each: plan._replace(parked_layer=layers[each], patience_us=0)
            for each, plan in flying.items()
            if each not in finished
        }
        now_s = line.now_s
