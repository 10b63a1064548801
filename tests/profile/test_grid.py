"""Which steps are measured: within bounds, dense enough, and none of those that the table is judged by."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends import rows
from harness import profile_grid
from harness.profile_grid import Bounds, Shape, held_out, knots, ladder, moved_tokens

bounds = st.builds(
    lambda tokens, context, requests, quick: Bounds(tokens, context, requests * context, quick),
    st.integers(64, 4096),
    st.integers(64, 4096),
    st.integers(2, 50),
    st.booleans(),
)


@given(bounds)
def test_every_shape_keeps_to_the_bounds(asked: Bounds) -> None:
    for shape in [*knots(asked), *held_out(asked)]:
        assert 1 <= shape.tokens <= asked.max_batch_tokens
        assert shape.rows <= asked.most_rows
        assert shape.rows * shape.context <= asked.kv_tokens
        assert shape.context <= asked.max_context
        assert all(length >= 1 and start >= 0 and length + start <= asked.max_context for length, start in shape.chunks)


@given(bounds)
def test_what_is_held_out_is_no_knot_and_always_the_same(asked: Bounds) -> None:
    assert not set(held_out(asked)) & set(knots(asked))
    assert held_out(asked) == held_out(asked)
    assert any(shape.rows and shape.chunks for shape in held_out(asked)), "mixtures are among them"


@given(bounds)
def test_no_knot_is_measured_twice_and_the_ends_are_there(asked: Bounds) -> None:
    found = knots(asked)
    assert len(set(found)) == len(found)
    batches = {shape.rows for shape in found if shape.rows}
    lengths = {shape.chunks[0][0] for shape in found if shape.chunks}
    assert {1, asked.most_rows} <= batches
    assert {1, min(asked.max_batch_tokens, asked.max_context)} <= lengths
    assert moved_tokens(asked)[-1] == asked.max_context


def test_a_path_that_changes_has_a_knot_on_each_side() -> None:
    assert profile_grid.SHORT_CHUNK == rows.SHORT_CHUNK
    lengths = {shape.chunks[0][0] for shape in knots(Bounds(512, 512, 4096)) if shape.chunks}
    assert {rows.SHORT_CHUNK, rows.SHORT_CHUNK + 1} <= lengths


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1.4, 2.0, 8.0]))
def test_a_ladder_climbs_by_its_ratio(first: int, last: int, ratio: float) -> None:
    steps = ladder(first, last, ratio)
    assert steps[-1] == last
    assert steps[0] == min(first, last)
    assert all(below < above <= below * ratio**1.6 + 1 for below, above in pairwise(steps))


def test_the_work_of_a_shape() -> None:
    work = Shape(2, 100, ((30, 0), (20, 10)), samples=True).work
    assert (work.tokens, work.decode_kv_tokens, work.prefill_kv_tokens, work.sampled) == (52, 200, 60, 4)
    assert Shape(chunks=((30, 0),)).work.sampled == 0


@pytest.mark.parametrize(
    ("shape", "words"),
    [(Shape(2, 100), "2 x 100"), (Shape(1, 16, ((30, 0), (20, 10))), "1 x 16, 30 from 0, 20 from 10")],
)
def test_a_shape_in_words(shape: Shape, words: str) -> None:
    assert str(shape) == words
