"""Bounded memory costs a known error: what is binned against what is exact."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.metrics import Aggregator, Measured, aggregate
from harness.stats import PERCENTILES, FloatArray, Spread, TimeCount
from tests.metrics.cells import random_cell, step

SLO = {"ttft_s": 0.2, "tpot_s": 0.1}


def filled(spread: Spread, values: FloatArray, parts: int = 1) -> Spread:
    for part in np.array_split(values, parts):
        spread.add(part)
    return spread


@pytest.mark.parametrize("limit", [10_000, 100])
def test_percentiles_are_numpys_within_half_a_percent(limit: int) -> None:
    values = np.random.default_rng(0).lognormal(-3, 1.5, 5000)
    found = filled(Spread(limit), values, parts=7).percentiles()
    tolerance = 1e-12 if limit > values.size else 0.005
    assert list(found) == list(PERCENTILES)
    for percent, interval in found.items():
        assert interval.value == pytest.approx(np.percentile(values, percent), rel=tolerance)
        assert interval.low <= interval.value <= interval.high


def test_mean_and_maximum_stay_exact() -> None:
    values = np.random.default_rng(1).exponential(1, 3000)
    spread = filled(Spread(10), values, parts=30)
    assert spread.total == pytest.approx(values.sum(), rel=1e-12)
    assert spread.maximum == values.max()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0, 1e6), min_size=6, max_size=60),
    st.integers(1, 100),
    st.integers(1, 100),
    st.integers(0, 60),
)
def test_merging_is_the_same_as_adding(values: list[float], mine: int, theirs: int, cut: int) -> None:
    together = filled(Spread(), np.array(values))
    apart = filled(Spread(mine), np.array(values[:cut]))
    apart.merge(filled(Spread(theirs), np.array(values[cut:])))
    assert (apart.count, apart.maximum) == (together.count, together.maximum)
    assert apart.total == pytest.approx(together.total)
    for percent, interval in apart.percentiles().items():
        assert interval.value == pytest.approx(together.percentiles()[percent].value, rel=0.005, abs=1e-9)


def test_what_is_not_there_is_not_counted() -> None:
    spread = filled(Spread(2), np.array([np.nan, 1.0, np.nan, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert spread.count == 6
    assert spread.percentiles()[50].value == 0.0
    assert Spread().percentiles() == {}


@pytest.mark.parametrize("span_s", [1e-3, 10.0, 1e6])
def test_counts_between_two_moments(span_s: float) -> None:
    rng = np.random.default_rng(2)
    times, amounts = rng.uniform(0, span_s, 4000), rng.integers(1, 9, 4000).astype(float)
    exact, binned = TimeCount(), TimeCount(exact_limit=100)
    for part in range(8):
        for count in (exact, binned):
            count.add(times[part::8], amounts[part::8])
    inside = amounts[(times > span_s / 3) & (times <= span_s / 2)].sum()
    assert exact.between(span_s / 3, span_s / 2) == inside
    assert binned.between(span_s / 3, span_s / 2) == pytest.approx(inside, abs=20)
    assert exact.total == binned.total == pytest.approx(amounts.sum())


def in_batches(cell: list[dict[str, Any]], limit: int, size: int) -> Measured:
    aggregator = Aggregator(SLO, exact_limit=limit)
    for start in range(0, len(cell), size):
        aggregator.add_requests(cell[start : start + size])
    aggregator.add_steps([step(0, 0.0, 10.0, gpu_busy_s=4.0)])
    aggregator.add_steps([step(1, 10.0, 12.0, gpu_busy_s=1.0)])
    return aggregator.result()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 80), st.integers(1, 30))
def test_batches_give_what_one_piece_gives(seed: int, count: int, size: int) -> None:
    cell = random_cell(seed, count)
    steps = [step(0, 0.0, 10.0, gpu_busy_s=4.0), step(1, 10.0, 12.0, gpu_busy_s=1.0)]
    whole, parts = aggregate(cell, steps, SLO), in_batches(cell, 10_000, size)
    assert parts.metrics == pytest.approx(whole.metrics)
    assert (parts.notes, parts.unavailable) == (whole.notes, whole.unavailable)


def test_bounded_memory_changes_figures_by_its_stated_error_only() -> None:
    cell = random_cell(seed=5, count=400)
    exact, binned = in_batches(cell, 10**6, 400), in_batches(cell, 64, 25)
    assert binned.metrics.keys() == exact.metrics.keys()
    for key, value in exact.metrics.items():
        assert binned.metrics[key] == pytest.approx(value, rel=0.006), key


def test_memory_does_not_grow_with_the_run() -> None:
    """200 tokens a request; what is kept after 8,000 requests is what is kept after 4,000."""
    gaps = np.random.default_rng(3).exponential(0.05, (1000, 200))
    aggregator = Aggregator(SLO, exact_limit=2000)
    tracemalloc.start()
    sizes = []
    for part in range(8):
        times = 50.0 * part + np.cumsum(gaps, axis=1)
        aggregator.add_requests(
            {
                "arrival_s": np.full(1000, 50.0 * part),
                "first_token_s": times[:, 0],
                "last_token_s": times[:, -1],
                "output_tokens": np.full(1000, 200),
                "token_times_s": list(times),
            }
        )
        del times
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] < sizes[3] + 100_000
    assert sizes[-1] < 8_000_000
    assert aggregator.result().metrics["output_tokens_per_s_whole_run"] > 0
