"""Intervals cover what they claim to, and the sentences say what the intervals allow."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.stats import (
    bootstrap_interval,
    observations_needed,
    order_ranks,
    paired_interval,
)
from harness.verdicts import verdict_sentence, verdicts

TRIALS = 1000


@pytest.mark.parametrize(("percent", "needed"), [(50, 6), (90, 36), (95, 72), (99, 368)])
def test_a_percentile_needs_so_many_observations(percent: int, needed: int) -> None:
    assert observations_needed(percent) == needed
    assert order_ranks(needed, percent / 100) is not None
    assert order_ranks(needed - 1, percent / 100) is None


def test_ranks_from_the_binomial_table() -> None:
    # Binomial(10, 1/2): P(B <= 1) = 0.0107, P(B <= 2) = 0.0547, so ranks 2 and 9
    assert order_ranks(10, 0.5) == (2, 9)


@pytest.mark.parametrize(("quantile", "count"), [(0.5, 1000), (0.9, 1000), (0.99, 2000)])
def test_order_statistics_cover_a_known_quantile(quantile: float, count: int) -> None:
    ranks = order_ranks(count, quantile)
    assert ranks is not None
    samples = np.sort(np.random.default_rng(1).exponential(1, (TRIALS, count)), axis=1)
    truth = -np.log(1 - quantile)
    covered = (samples[:, ranks[0] - 1] <= truth) & (truth <= samples[:, ranks[1] - 1])
    assert 0.93 <= covered.mean() <= 0.97


@pytest.mark.parametrize("pairs", [5, 10])
def test_paired_intervals_cover_a_known_effect(pairs: int) -> None:
    ratios = 1.3 * np.exp(np.random.default_rng(2).normal(0, 0.05, (TRIALS, pairs)))
    intervals = [paired_interval(row.tolist()) for row in ratios]
    covered = sum(interval.low <= 1.3 <= interval.high for interval in intervals)
    assert 0.93 * TRIALS <= covered <= 0.97 * TRIALS


def test_a_bootstrap_over_requests_covers_the_mean() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(300):
        interval = bootstrap_interval(
            rng.exponential(1, 200), lambda drawn: float(drawn.mean()), seed=trial, resamples=300
        )
        covered += interval.low <= 1 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_an_engine_against_itself_shows_no_difference() -> None:
    ratios = np.exp(np.random.default_rng(4).normal(0, 0.05, (200, 5)))
    sentences = [verdict_sentence("a", "a again", row.tolist()) for row in ratios]
    assert sum(sentence.startswith("no difference shown (") for sentence in sentences) >= 184


def test_a_bootstrap_redraws_whole_requests() -> None:
    pairs = np.array([[1.0, 2.0], [3.0, 6.0]])  # tokens, seconds: their ratio is 1/2 in every redraw
    interval = bootstrap_interval(
        pairs, lambda drawn: float(drawn[:, 0].sum() / drawn[:, 1].sum()), seed=0, resamples=50
    )
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="at least one request"):
        bootstrap_interval(np.empty(0), lambda drawn: 0.0, seed=0)


def spread_around(centre: float, reach: float) -> list[float]:
    """Five ratios whose t-interval is centre * or / (1 + reach)."""
    steps = np.array([-1.0, -1.0, 0.0, 1.0, 1.0]) * np.log(1 + reach) * np.sqrt(5) / 2.7764
    return [float(ratio) for ratio in centre * np.exp(steps)]


@pytest.mark.parametrize(
    ("ratios", "sentence"),
    [
        (spread_around(1.31, 0.03), "apex is 31 % faster than gpu_only (95 % interval 27-35 %, 5 pairs)"),
        (spread_around(0.88, 0.04), "apex is 12 % slower than gpu_only (95 % interval 8-15 %, 5 pairs)"),
        (spread_around(1.02, 0.01), "apex is 2.0 % faster than gpu_only (95 % interval 1.0-3.0 %, 5 pairs)"),
        (spread_around(7.5, 0.1), "apex is 650 % faster than gpu_only (95 % interval 582-725 %, 5 pairs)"),
        (spread_around(1.01, 0.04), "no difference shown (apex against gpu_only: 95 % interval -3 to +5 %, 5 pairs)"),
        ([1.25] * 5, "apex is 25 % faster than gpu_only (the same in all 5 pairs)"),
        ([1.0] * 6, "no difference shown (apex against gpu_only: the same in all 6 pairs)"),
        ([1.3, 1.2, 1.4], "apex / gpu_only = 1.3 (1.2-1.4 in 3 pairs); no verdict below 5 pairs"),
        ([1.3], "apex / gpu_only = 1.3 (1.3-1.3 in 1 pair); no verdict below 5 pairs"),
        ([], "apex and gpu_only have no pair to compare"),
    ],
)
def test_sentences(ratios: list[float], sentence: str) -> None:
    assert verdict_sentence("apex", "gpu_only", ratios) == sentence


@pytest.mark.parametrize("ratios", [[1.0, -1.0], [0.0] * 5, [float("nan")] * 5, [float("inf")] * 3])
def test_a_ratio_is_a_positive_number(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="positive number"):
        verdict_sentence("a", "b", ratios)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=12))
def test_exchanging_the_engines_exchanges_the_verdict(ratios: list[float]) -> None:
    forth, back = verdict_sentence("a", "b", ratios), verdict_sentence("b", "a", [1 / ratio for ratio in ratios])
    assert forth.startswith("no difference") == back.startswith("no difference")
    assert ("faster" in forth) == ("slower" in back)


def cell(engine: str, repeat: int, throughput: float | None, **changes: Any) -> dict[str, Any]:
    metrics = {} if throughput is None else {"output_tokens_per_s": throughput, "window_is_plateau": 1.0}
    return {
        "engine": engine,
        "workload": "chat",
        "repeat": repeat,
        "label": "simulated",
        "status": "ok",
        "metrics": metrics,
        **changes,
    }


def run_of(engine: str, ratios: list[float], **changes: Any) -> list[dict[str, Any]]:
    return [cell(engine, repeat, 100 * ratio, **changes) for repeat, ratio in enumerate(ratios)]


FASTER = spread_around(1.31, 0.03)


def test_every_engine_is_paired_with_gpu_only_by_repeat() -> None:
    cells = [*run_of("apex", FASTER), *run_of("neo", [1.0] * 5), *reversed(run_of("gpu_only", [1.0] * 5))]
    assert verdicts(cells) == [
        "apex is 31 % faster than gpu_only (95 % interval 27-35 %, 5 pairs) [simulated]",
        "no difference shown (neo against gpu_only: the same in all 5 pairs) [simulated]",
    ]


def test_without_gpu_only_the_first_engine_is_the_baseline() -> None:
    (sentence,) = verdicts([*run_of("neo", [1.0] * 5), *run_of("apex", FASTER)])
    assert sentence.startswith("apex is 31 % faster than neo")


def test_workloads_are_judged_apart() -> None:
    cells = [
        *run_of("gpu_only", [1.0] * 5),
        *run_of("apex", FASTER),
        *run_of("gpu_only", [1.0] * 2, workload="code"),
        *run_of("apex", [0.9] * 2, workload="code"),
    ]
    assert verdicts(cells) == [
        "chat: apex is 31 % faster than gpu_only (95 % interval 27-35 %, 5 pairs) [simulated]",
        "code: apex / gpu_only = 0.9 (0.9-0.9 in 2 pairs); no verdict below 5 pairs [simulated]",
    ]


def test_one_engine_gets_its_median() -> None:
    assert verdicts(run_of("apex", [1.0, 3.0, 2.0], label="emulated")) == [
        "apex: 200 output tokens/s, median of 3 repeats [emulated]"
    ]


def test_cells_without_a_figure_are_left_out_and_said() -> None:
    cells = [*run_of("gpu_only", [1.0] * 6), *run_of("apex", FASTER)]
    cells += [cell("apex", 5, None, status="failed", error="out of memory: 14 GiB\nTraceback ...")]
    assert verdicts(cells) == [
        "apex is 31 % faster than gpu_only (95 % interval 27-35 %, 5 pairs) [simulated]",
        "apex on chat: 1 of 6 cells left out (failed: out of memory: 14 GiB)",
    ]


def test_a_figure_of_an_invalid_cell_is_not_used() -> None:
    cells = [*run_of("gpu_only", [1.0] * 5), *run_of("apex", FASTER, status="invalid", notes=["tokens differ"])]
    assert verdicts(cells) == [
        "apex has no valid cell: no comparison with gpu_only",
        "apex on chat: 5 of 5 cells left out (invalid: tokens differ)",
    ]


def test_without_a_baseline_there_are_figures_only() -> None:
    cells = [cell("gpu_only", 0, None, status="refused"), *run_of("apex", [1.0, 1.2])]
    assert verdicts(cells) == [
        "gpu_only, the baseline, has no valid cell: nothing is compared with it",
        "apex: 110 output tokens/s, median of 2 repeats [simulated]",
        "gpu_only on chat: 1 of 1 cells left out (refused)",
    ]


def test_different_labels_are_not_compared() -> None:
    cells = [*run_of("gpu_only", [1.0] * 5), *run_of("vllm", FASTER, label="measured")]
    assert verdicts(cells) == ["vllm is measured and gpu_only simulated: different labels are not compared"]


def test_two_cells_of_one_repeat_are_no_pair() -> None:
    (sentence,) = verdicts([*run_of("gpu_only", [1.0] * 5), *run_of("apex", FASTER), cell("apex", 0, 100.0)])
    assert sentence.startswith("apex and gpu_only have several cells of one repeat")


def test_a_plateau_is_not_compared_with_a_whole_run() -> None:
    cells = [*run_of("gpu_only", [1.0] * 5), *run_of("apex", [9.0] * 5)]
    for number, each in enumerate(cells):
        each["metrics"] |= {"window_is_plateau": float(number < 5), "output_tokens_per_s_whole_run": 50.0}
    assert verdicts(cells) == [
        "no difference shown (apex against gpu_only: the same in all 5 pairs) [simulated, over the whole run]"
    ]


def test_no_cells_no_sentences() -> None:
    assert verdicts([]) == []


def test_a_mock_is_never_compared() -> None:
    mock = run_of("mock", [9.0] * 5, resolved={"model": "mock engine: no model runs"})
    lines = verdicts(run_of("gpu_only", [1.0] * 5) + mock)
    assert "faster" not in " ".join(lines)
    assert any("no model runs" in line for line in lines)


def _cell(engine: str, repeat: int, rate: float, drawn: list[float] | None = None) -> dict[str, Any]:
    key = "output_tokens_per_s_whole_run"
    cell = {
        "engine": engine,
        "workload": "chat",
        "repeat": repeat,
        "label": "simulated",
        "status": "ok",
        "metrics": {"output_tokens_per_s": rate, key: rate},
    }
    return cell if drawn is None else {**cell, "draws": {"constants": ["gpu.x"], "values": {key: drawn}}}


def test_a_verdict_says_how_far_it_depends_on_uncertain_constants() -> None:
    """Both are twice as fast on the first machine: only the second changes the ratio."""
    cells = [
        _cell("gpu_only", 0, 100.0, [200.0, 100.0]),
        *(_cell("gpu_only", repeat, 100.0) for repeat in range(1, 5)),
        _cell("apex", 0, 150.0, [300.0, 120.0]),
        *(_cell("apex", repeat, 150.0) for repeat in range(1, 5)),
    ]
    (line,) = verdicts(cells)
    assert "1.20-1.50 times as fast on 2 machines within the catalogue's ranges [simulated]" in line


def test_without_draws_a_verdict_says_nothing_of_them() -> None:
    cells = [_cell(engine, repeat, 100.0) for engine in ("gpu_only", "apex") for repeat in range(5)]
    assert "machines" not in " ".join(verdicts(cells))
