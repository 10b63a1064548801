"""E-divisive against brute force, against published examples, and its test against what a test has to be."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from harness.stats import FloatArray
from harness.tracking.change_points import Split, best_split, change_points, energy_distance, p_value


def statistic(values: list[float], at: int) -> float:
    """Straight from the paper: pairs counted one by one."""
    left, right = values[:at], values[at:]
    n, m = len(left), len(right)
    across = sum(abs(a - b) for a in left for b in right) * 2 / (n * m)

    def within(side: list[float]) -> float:
        pairs = [(a, b) for index, a in enumerate(side) for b in side[index + 1 :]]
        return sum(abs(a - b) for a, b in pairs) / len(pairs) if pairs else 0.0

    return n * m / (n + m) * (across - within(left) - within(right))


@pytest.mark.parametrize("seed", range(20))
def test_the_best_split_is_the_one_that_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(int(rng.integers(4, 25)))
    first, last = 1, values.size - 1
    expected = [statistic(values.tolist(), at) for at in range(first, last + 1)]
    found = best_split(values, first, last)
    assert found is not None
    assert found.q == pytest.approx(max(expected))
    assert expected[found.at - first] == pytest.approx(max(expected))  # two may be equally good


def test_without_a_split_to_choose_there_is_none() -> None:
    assert best_split(np.arange(3.0), 2, 1) is None
    assert change_points([1.0]) == []


@pytest.mark.parametrize("values", [[0.1, 0.3, -0.2, 5.0, 5.2, 4.9], [0.0, 1.0, 0.5, 0.7, 2.0, 0.2]])
def test_the_p_value_is_that_of_all_orders(values: list[float]) -> None:
    """720 orders of six figures, all of them, against the 999 that are drawn."""
    figures = np.array(values)
    split = best_split(figures, 2, 4)
    assert split is not None
    orders = [np.array(order) for order in permutations(values)]
    reached = [best(order) >= split.q - 1e-9 for order in orders]
    exact = sum(reached) / len(orders)
    assert p_value(figures, split, 2, 4) == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 999) + 0.001)


def best(values: FloatArray) -> float:
    found = best_split(values, 2, 4)
    assert found is not None
    return found.q


def test_the_p_value_is_level_however_many_splits_are_tried() -> None:
    """Of 400 rows in which nothing changes, as many are below 0.1 as a level of 0.1 allows (binomial, 4 sd)."""
    rng = np.random.default_rng(5)
    rows = rng.standard_t(3, (400, 25))
    below = 0
    for row in rows:
        split = best_split(row, 2, 23)
        assert split is not None
        below += p_value(row, split, 2, 23, 0.1) <= 0.1
    assert 40 - 24 <= below <= 40 + 24


def test_the_same_history_is_always_judged_the_same() -> None:
    row = np.random.default_rng(1).standard_normal(30)
    split = best_split(row, 2, 28)
    assert split is not None
    assert len({p_value(row, split, 2, 28) for _ in range(3)}) == 1


def test_stopping_early_changes_no_decision() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        row = rng.standard_normal(20)
        split = best_split(row, 2, 18)
        assert split is not None
        assert (p_value(row, split, 2, 18, 0.05) <= 0.05) == (p_value(row, split, 2, 18) <= 0.05)


# Examples that others publish with their implementations: figures and results, apache-otava's and
# signal-processing-algorithms'.
LEVELS_OF_THREE = [0.3, 2.4, 1.5, -0.9, -0.5, 99.7, 98.3, 99.1, 149.0, 149.7, 149.5, 149.1, 148.8, 150.0]


def test_three_levels_as_published() -> None:
    assert change_points(LEVELS_OF_THREE, significance=0.05) == [5, 8]


@pytest.mark.parametrize("at", [4, 7, 12, 20, 30, 45])
def test_zeros_then_ones_as_published(at: int) -> None:
    assert change_points([0.0] * at + [1.0] * at) == [at]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (range(10, 70), range(10, 70), 0.0),
        (range(1, 100), range(1, 105), 0.160),
        (range(1, 100), range(10000, 13000, 14), 21859.691),
        (range(1, 300), range(1000, 5000, 10), 4257.009),
        (range(300, 500), range(400, 900, 11), 268.352),
    ],
)
def test_energy_distances_as_published(left: range, right: range, expected: float) -> None:
    found = energy_distance(np.array(left, dtype=float), np.array(right, dtype=float))
    assert found == pytest.approx(expected, abs=1.5e-3)  # they round, or cut, to three decimals


def test_a_change_below_the_minimum_effect_is_none() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([100 + rng.standard_normal(30), 105 + rng.standard_normal(30)])
    assert change_points(values, min_effect=0.03) == [30]
    assert change_points(values, min_effect=0.08) == []


def test_constant_figures_have_no_change_point() -> None:
    assert change_points([3.0] * 20) == []
    assert p_value(np.full(20, 3.0), Split(10, 0.0), 2, 18) == 1.0
