"""Two runs laid over each other: shares of time, not seconds; batch sizes weighted by how long they lasted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.step_series import StepSeries, batch_curve, compare


def series(*steps: tuple[float, float, float]) -> StepSeries:
    starts, ends, batch = zip(*steps, strict=True)
    return StepSeries(starts, ends, batch)


@st.composite
def runs(draw: st.DrawFn) -> StepSeries:
    """Steps one after the other with gaps between them."""
    steps, now = [], draw(st.floats(0, 10))
    for _ in range(draw(st.integers(1, 20))):
        end = now + draw(st.floats(0.01, 2))
        steps.append((now, end, float(draw(st.integers(1, 50)))))
        now = end + draw(st.sampled_from([0.0, 0.001, 5.0]))
    return series(*steps)


@given(runs(), st.floats(0.1, 100), st.floats(0, 1000))
def test_a_run_agrees_with_itself_slower_and_later(run: StepSeries, factor: float, shift: float) -> None:
    slower = StepSeries(
        [shift + factor * t for t in run.started_s], [shift + factor * t for t in run.ended_s], run.batch
    )
    agreement = compare(run, slower)
    assert agreement.mean_abs_difference == pytest.approx(0, abs=1e-5 * max(run.batch))
    assert agreement.mean_a == pytest.approx(agreement.mean_b, rel=1e-5)
    assert agreement.correlation is None or agreement.correlation == pytest.approx(1, abs=1e-3)


@given(runs(), runs())
def test_it_does_not_matter_who_is_first(a: StepSeries, b: StepSeries) -> None:
    there, back = compare(a, b), compare(b, a)
    assert there.mean_abs_difference == pytest.approx(back.mean_abs_difference)
    assert (there.mean_a, there.mean_b) == pytest.approx((back.mean_b, back.mean_a))
    assert there.correlation == (None if back.correlation is None else pytest.approx(back.correlation))


def test_by_hand() -> None:
    agreement = compare(series((0, 1, 2), (1, 4, 6)), series((0, 20, 2), (20, 40, 6)))
    assert (agreement.mean_a, agreement.mean_b) == (5.0, 4.0)
    assert agreement.mean_abs_difference == 1.0, "a quarter of the time one has 6 and the other 2"
    assert agreement.relative_difference == pytest.approx(0.2)
    assert agreement.correlation == pytest.approx(0.577, abs=1e-3)


def test_one_grows_while_the_other_shrinks() -> None:
    assert compare(series((0, 1, 1), (1, 2, 9)), series((0, 1, 9), (1, 2, 1))).correlation == pytest.approx(-1)


def test_a_batch_lasts_until_the_next_step_but_not_through_a_pause() -> None:
    curve = batch_curve(series((0, 1, 4), (1.1, 2, 5), (8, 10, 6)))
    assert curve.edges.tolist() == pytest.approx([0, 0.11, 0.1 * 2, 0.8, 1])
    assert curve.values.tolist() == [4, 5, 0, 6]


def test_flat_curves_have_no_correlation() -> None:
    assert compare(series((0, 1, 4)), series((0, 1, 4), (1, 2, 5))).correlation is None


@pytest.mark.parametrize("steps", [([], [], []), ([0.0], [1.0], []), ([0.0], [0.0], [1.0])])
def test_what_is_no_series(steps: tuple[list[float], list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="series"):
        StepSeries(*steps)
