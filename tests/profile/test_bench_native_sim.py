"""What `harness bench native-sim` says of its pairs. That it runs is shown by running it: it takes minutes."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec

import pytest

from harness.bench_native_sim import BUDGETS, Served, row_of, words
from harness.commands import Bench
from harness.step_series import StepSeries


def served(tokens_per_s: float, preemptions: int, batch: list[float], error: float = 0.0) -> Served:
    starts = [float(index) for index in range(len(batch))]
    return Served(tokens_per_s, preemptions, error, StepSeries(starts, [start + 1 for start in starts], batch))


PAIRS = [
    (served(100, 7, [1, 2, 3], 0.02), served(110, 8, [1, 2, 3])),
    (served(100, 5, [1, 2, 3], -0.04), served(90, 5, [1, 2, 6])),
    (served(200, 6, [1, 2, 3], -0.01), served(204, 6, [1, 2, 3])),
]


def test_figures_are_medians_of_pairs() -> None:
    row = row_of("kv-starved", 2.5, PAIRS)
    assert (row.ratio_min, row.ratio_median, row.ratio_max) == pytest.approx((0.9, 1.02, 1.1))
    assert (row.native_preemptions, row.simulated_preemptions) == ((7, 5, 6), (8, 5, 6))
    assert row.batch_correlation == pytest.approx(1)
    assert row.batch_difference == pytest.approx(0)
    assert row.step_prediction_error == pytest.approx(-0.01)
    assert json.loads(json.dumps(asdict(row)))["budget"] == BUDGETS["kv-starved"]


def test_a_pair_that_differs_shows() -> None:
    row = row_of("kv-starved", 2.5, PAIRS[1:2])
    assert row.batch_difference == pytest.approx(0.5), "one request more on average, where two were served"
    assert row.batch_correlation is not None
    assert row.batch_correlation < 1


def test_in_words() -> None:
    text = "\n".join(words(row_of("kv-starved", 2.5, PAIRS)))
    for part in ("1.020 (0.900-1.100, 3 pairs", "native 7, 5, 6; simulated 8, 5, 6", "correlation 1.00", "-1.0%"):
        assert part in text
    flat = [(served(1, 0, [4, 4]), served(1, 0, [4, 4]))]
    assert "flat" in "\n".join(words(row_of("batch-limited", 1.0, flat)))


@pytest.mark.parametrize("what", list(Bench))
def test_every_bench_has_its_module(what: Bench) -> None:
    assert find_spec(f"harness.bench_{what.replace('-', '_')}") is not None
