"""Effects of a known size: what is shown is said with its interval and decides the exit code, what is not is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.compare import Verdict, compare_runs, parse_threshold
from harness.errors import ConfigError
from harness.stats import paired_interval
from tests.compare.conftest import change_cells, scale
from tests.harness.conftest import Call

RATE = "output_tokens_per_s"


def test_equal_runs_show_nothing(call: Call, a: Path, b: Path) -> None:
    answer = call("compare", a, b)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == [
        f"gpu_only on chat, {RATE}: no difference shown (B against A: the same in all 6 pairs) [emulated]",
        f"apex on chat, {RATE}: no difference shown (B against A: the same in all 6 pairs) [emulated]",
        "no regression beyond 5 % shown in 2 of 2 comparisons",
    ]


def test_a_regression_is_exit_code_1(call: Call, a: Path, b: Path) -> None:
    scale(b, {RATE: 0.88}, noise=0.01, engine="apex")
    answer = call("compare", a, b)
    assert answer.code == 1
    gpu_only, apex, why, conclusion = answer.out.splitlines()
    assert why.startswith("why, apex on chat: not known: "), "these cells say nothing of the whole run"
    assert "no difference shown" in gpu_only
    assert apex.startswith(f"apex on chat, {RATE}: B is 12.0 % lower than A (95 % interval 11.0-13.0 %, 6 pairs)")
    assert apex.endswith(": regression beyond 5 % [emulated]")
    assert conclusion == "1 of 2 comparisons show a regression beyond 5 %"
    assert call("compare", a, b, "--threshold", "15%").code == 0
    assert call("compare", b, a).code == 0, "the other way round it is an improvement"


def test_only_an_interval_beyond_the_threshold_is_one(a: Path, b: Path) -> None:
    scale(b, {RATE: 0.94}, noise=0.03, engine="apex")
    (found,) = (each for each in compare_runs(a, b).comparisons if each.engine == "apex")
    assert found.interval is not None
    assert found.interval.value < 0.95 < found.interval.high < 1
    assert found.verdict is Verdict.WITHIN
    assert "lower" in found.sentence, "a difference is shown, but not that it is beyond the threshold"
    assert compare_runs(a, b, threshold=0.0).exit_code == 1


def test_the_interval_is_students_t_on_the_logarithms(a: Path, b: Path) -> None:
    scale(b, {RATE: 1.1}, noise=0.02)
    for found in compare_runs(a, b).comparisons:
        assert found.ratios == pytest.approx([1.1 * (1 + sign * 0.02) for sign in (-1, 1) * 3])
        assert found.interval == paired_interval(found.ratios)
        assert found.verdict is Verdict.IMPROVEMENT


def test_of_a_latency_more_is_worse(call: Call, a: Path, b: Path) -> None:
    scale(b, {"ttft_s_p50": 1.2}, noise=0.01, engine="apex")
    answer = call("compare", a, b, "--metric", "ttft_s_p50", "--metric", RATE)
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert sum("regression beyond 5 %" in line for line in lines[:4]) == 1
    assert lines[2].startswith(
        "apex on chat, ttft_s_p50: B is 20.0 % higher than A (95 % interval 18.6-21.4 %, 6 pairs)"
    )
    assert call("compare", b, a, "--metric", "ttft_s_p50").code == 0


def test_json_has_all_of_it(call: Call, a: Path, b: Path) -> None:
    scale(b, {RATE: 0.8}, noise=0.01, engine="apex")
    answer = call("compare", a, b, "--json", "--threshold", "0.1")
    assert answer.code == 1
    data = json.loads(answer.out)
    assert (data["regressions"], data["threshold"], data["label"], data["left_out"]) == (1, 0.1, "emulated", [])
    apex = data["comparisons"][1]
    assert (apex["engine"], apex["metric"], apex["pairs"], apex["verdict"]) == ("apex", RATE, 6, "regression")
    assert apex["interval"]["low"] < apex["interval"]["value"] < apex["interval"]["high"] < 0.9


def test_a_plateau_is_not_compared_with_a_whole_run(a: Path, b: Path) -> None:
    for run, plateau in ((a, 1.0), (b, 0.0)):
        figures = {"window_is_plateau": plateau, f"{RATE}_whole_run": 50.0}
        change_cells(run, lambda cell, figures=figures: cell["metrics"].update(figures))  # type: ignore[misc]
    scale(b, {RATE: 0.5})
    found = compare_runs(a, b)
    assert {each.metric for each in found.comparisons} == {f"{RATE}_whole_run"}
    assert found.exit_code == 0


def test_nothing_to_divide_by(a: Path, b: Path) -> None:
    change_cells(a, lambda cell: cell["metrics"].update(preemptions=0.0))
    change_cells(b, lambda cell: cell["metrics"].update(preemptions=float(cell["repeat"])))
    found = compare_runs(a, b, ["preemptions"])
    assert [each.ratios for each in found.comparisons] == [(1.0,), (1.0,)]
    assert {each.reason for each in found.left_out} == {
        f"preemptions is {count} against 0 in A: no ratio" for count in range(1, 6)
    }


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), (" 7.5 % ", 0.075), ("0", 0.0)])
def test_thresholds(text: str, share: float) -> None:
    assert parse_threshold(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "100%", "-1%", "much", "", "nan"])
def test_no_thresholds(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a share below 1"):
        parse_threshold(text)
