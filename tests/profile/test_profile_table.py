"""The table answers for every op of a step what the measured machine would take."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.cost import Work, work_of
from engines.core.pipeline import lower, makespan
from engines.core.placement import Placement
from engines.core.profile_table import ProfileTable, UnmeasuredError
from engines.core.types import Batch, Move, PrefillChunk, Tier
from harness.profile_file import measurements
from harness.profile_grid import Shape
from tests.backends.plans import plan
from tests.core.worlds import capabilities
from tests.profile import laws

PROFILE = laws.made_profile()
MEASURED = measurements(PROFILE.points, PROFILE.overhead, PROFILE.setting.shape["layers"])
TABLE = ProfileTable(MEASURED)
PLACEMENT = Placement.all_on_accelerator(laws.LAYERS)


def step_s(shape: Shape) -> float:
    """By the formulas: what longer contexts cost the op after attention comes once per layer."""
    layers = laws.LAYERS
    return (
        laws.first_s(shape.tokens)
        + layers * (laws.attention_s(shape) + laws.evicted_s(shape))
        + (layers - 1) * laws.between_s(shape.tokens)
        + laws.last_s(shape.tokens)
        + laws.head_s(shape.work.sampled)
    )


@given(rows=st.integers(1, 64), context=st.integers(16, 512))
def test_a_step_of_decodes_takes_what_the_machine_takes(rows: int, context: int) -> None:
    batch = Batch(tuple(range(rows)), (context - 1,) * rows)
    seconds, _ = makespan(lower(plan(batch), PLACEMENT), plan(batch), TABLE)
    assert seconds == pytest.approx(step_s(Shape(rows, context)), rel=0.01)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 400)), min_size=1, max_size=4), st.integers(0, 8))
def test_chunks_are_priced_one_by_one(chunks: list[tuple[int, int]], rows: int) -> None:
    prefills = tuple(PrefillChunk(i, i, start, length, True) for i, (length, start) in enumerate(chunks))
    batch = Batch(tuple(range(10, 10 + rows)), (99,) * rows, prefills)
    attention = TABLE.accel_attention_s(work_of(batch))
    alone = sum(TABLE.accel_attention_s(work_of(Batch(prefills=(chunk,)))) for chunk in prefills)
    assert attention == pytest.approx(alone + TABLE.accel_attention_s(work_of(Batch(batch.decode_slots, (99,) * rows))))


def test_what_if_without_chunks_is_one_chunk() -> None:
    known = Work(prefill_tokens=40, prefill_kv_tokens=140, chunks=((40, 100),))
    assert TABLE.accel_attention_s(known._replace(chunks=())) == TABLE.accel_attention_s(known) > 0


def test_rows_of_unequal_contexts_cost_what_their_mean_does() -> None:
    unequal, equal = (work_of(Batch((0, 1), positions)) for positions in ((99, 299), (199, 199)))
    assert TABLE.accel_attention_s(unequal) == TABLE.accel_attention_s(equal)


def test_nothing_takes_no_time() -> None:
    assert TABLE.accel_attention_s(Work()) == 0
    assert TABLE.host_attention_s(0, 0) == 0
    assert TABLE.linear_s(0) == TABLE.pre_attention_s(0) == TABLE.post_attention_s(0) == TABLE.head_s(0) == 0


def test_moves_have_a_direction() -> None:
    out = Move(0, Tier.ACCEL, (), Tier.HOST, (), 100)
    back = replace(out, source=Tier.HOST, target=Tier.ACCEL)
    assert TABLE.move_s(out) == pytest.approx(2e-5)
    assert TABLE.move_s(back) == pytest.approx(4e-5)


def test_host_attention_where_it_was_measured_and_where_it_was_not() -> None:
    assert TABLE.host_attention_s(4, 4 * 200) == pytest.approx(laws.host_s(laws.HOST_THREADS, 4, 200), rel=0.05)
    with pytest.raises(UnmeasuredError, match="no host attention"):
        ProfileTable(replace(MEASURED, host={})).host_attention_s(1, 100)


def test_the_loop_costs_more_the_more_tokens_it_hands_out() -> None:
    executor = SimExecutor(capabilities(64), PLACEMENT, TABLE, VirtualClock())
    first = executor.run(plan(Batch((0, 1, 2), (20, 20, 20)), step=1))
    second = executor.run(plan(Batch((0,), (20,)), step=2))
    gap_s = second.started_s - first.ended_s
    assert gap_s == pytest.approx(laws.STEP_OVERHEAD_S + 3 * laws.TOKEN_OVERHEAD_S)
