"""The estimates of noise, on samples of which it is known."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from harness.tracking.noise import change_interval, control_spread, middle, spread, winsorised


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_the_middle_is_the_median(size: int) -> None:
    values = np.random.default_rng(size).standard_normal(size)
    assert middle(values) == pytest.approx(median(values.tolist()))


def test_the_spread_is_the_standard_deviation_and_deaf_to_an_outlier() -> None:
    values = np.random.default_rng(0).normal(0, 0.01, 2000)
    assert spread(values) == pytest.approx(0.01, rel=0.05)
    few = values[:20].copy()
    quiet = spread(few)
    few[7] = -1.0
    assert spread(few) < 2 * quiet
    assert float(np.std(few, ddof=1)) > 10 * quiet


def test_equal_figures_have_no_spread_and_are_not_clipped() -> None:
    values = np.array([1.0] * 9 + [5.0])
    assert spread(values) == 0.0
    assert (winsorised(values) == values).all()


def test_a_control_counts_around_1_and_needs_five() -> None:
    assert control_spread([0.02] * 4) == 0.0
    assert control_spread([0.02] * 5) == pytest.approx(0.02)
    assert control_spread([0.02, -0.02, 0.02, -0.02, 0.02, 0.9]) < 0.1


def test_the_interval_of_a_change_holds_the_truth_as_often_as_it_says() -> None:
    """Of 1,000 independent samples at least 95 % less 3 sd."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(1000):
        found = change_interval(rng.normal(0, 0.01, 20), rng.normal(-0.05, 0.01, 3))
        held += found.low <= -0.05 <= found.high
    assert held >= 950 - 21
