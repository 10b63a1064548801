"""From samples to points: what belongs to which op, and how well the table then predicts what it has not seen."""

from __future__ import annotations

import pytest

from engines.core.profile_table import ProfileTable
from harness.errors import ConfigError
from harness.profile_accuracy import accuracy_of, lines
from harness.profile_file import CountPoint, measurements
from harness.profile_grid import knots
from harness.profile_loop import line_through
from harness.profile_points import ATTENTION, BETWEEN, points_of
from tests.profile import laws

POINTS = points_of(laws.samples(), laws.BOUNDS)


def test_linear_ops_are_those_after_short_contexts() -> None:
    assert {point.count: point.median_s for point in POINTS.between} == pytest.approx(
        {point.count: laws.between_s(point.count) for point in POINTS.between}
    )
    assert len(POINTS.between) == len({shape.tokens for shape in knots(laws.BOUNDS)})


def test_what_long_contexts_cost_the_op_after_attention_is_booked_on_it() -> None:
    long = max(POINTS.decode_attention, key=lambda point: (point.context, point.rows))
    [shape] = [shape for shape in knots(laws.BOUNDS) if (shape.rows, shape.context) == long.key]
    assert laws.evicted_s(shape) > 0
    assert long.median_s == pytest.approx(laws.attention_s(shape) + laws.evicted_s(shape))


def test_the_head_is_what_sampling_adds() -> None:
    for point in POINTS.head:
        assert point.median_s == pytest.approx(laws.head_s(point.count))


def test_spreads_are_those_of_the_rounds() -> None:
    samples = laws.samples(rounds=11)
    shape = next(shape for shape in knots(laws.BOUNDS) if shape.rows == 1)
    for index, run in enumerate(samples.steps[shape]):
        samples.steps[shape][index] = run | {ATTENTION: run[ATTENTION] * (1 + index)}
    point = next(point for point in points_of(samples, laws.BOUNDS).decode_attention if point.rows == 1)
    assert point.samples == 11
    assert point.p10_s == pytest.approx(laws.attention_s(shape) * 2)
    assert point.median_s == pytest.approx(laws.attention_s(shape) * 6)
    assert point.p90_s == pytest.approx(laws.attention_s(shape) * 10)


def test_a_table_of_a_smooth_machine_predicts_it() -> None:
    accuracy = laws.made_profile().accuracy
    assert accuracy.median_error < 0.01
    assert accuracy.p95_error < 0.05
    assert {each.what for each in accuracy.held_out} == {"first", "layer", "last layer", "step", "host attention"}


def test_what_ops_take_beside_each_other_has_a_table_of_its_own() -> None:
    profile = laws.made_profile()
    alone, beside = profile.table(), profile.table(beside=True)
    assert beside.linear_s(37) == pytest.approx(laws.BESIDE * alone.linear_s(37))
    assert beside.host_attention_s(8, 8 * 100) == pytest.approx(laws.BESIDE * alone.host_attention_s(8, 8 * 100))
    assert profile.accuracy_beside is not None
    assert profile.accuracy_beside.median_error < 0.01
    lonely = profile.model_copy(update={"beside": None})
    with pytest.raises(ConfigError, match="--alone"):
        lonely.table(beside=True)


def test_the_table_knows_the_host_with_all_its_threads() -> None:
    profile = laws.made_profile()
    assert {point.threads for point in profile.points.host_attention} == {1, 2}
    rows, context = 4, 100
    expected = laws.host_s(2, rows, context)
    assert profile.table().host_attention_s(rows, rows * context) == pytest.approx(expected, rel=0.05)


def test_a_machine_that_changed_shows_in_the_errors() -> None:
    """The held-out steps alone get slower: the table cannot know, and the errors say so."""
    found, profile = laws.samples(), laws.made_profile()
    seen = set(knots(laws.BOUNDS))
    for shape, runs in found.steps.items():
        if shape not in seen:
            runs[:] = [run | {BETWEEN: 2 * run[BETWEEN], ATTENTION: 2 * run[ATTENTION]} for run in runs]
    table = ProfileTable(measurements(profile.points, profile.overhead, profile.setting.shape["layers"]))
    accuracy = accuracy_of(found, table, laws.BOUNDS, laws.LAYERS)
    layers = [each.error for each in accuracy.held_out if each.what == "layer"]
    assert all(error == pytest.approx(0.5, abs=0.05) for error in layers)
    assert any("layer" in line and "50" in line for line in lines(accuracy))


def gap(rows: int, seconds: float) -> CountPoint:
    return CountPoint(count=rows, p10_s=seconds, median_s=seconds, p90_s=seconds, samples=1)


def test_overhead_is_a_line_that_one_bad_batch_does_not_bend() -> None:
    gaps = [gap(rows, 3e-4 + 2e-6 * rows) for rows in (1, 4, 16, 64, 256)]
    assert line_through(gaps) == pytest.approx((3e-4, 2e-6))
    gaps[2] = gap(16, 5e-3)
    assert line_through(gaps) == pytest.approx((3e-4, 2e-6), rel=0.01)
    assert line_through([gap(8, 2e-4)]) == (2e-4, 0.0)
    assert line_through([gap(1, 4e-4), gap(64, 3e-4)])[1] == 0.0, "more rows are never cheaper"
