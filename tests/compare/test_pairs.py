"""What is paired with what, what is left out and why, and which runs are not compared at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.compare import compare_runs
from harness.errors import ConfigError
from tests.compare.conftest import change_cells, change_manifest, scale
from tests.harness.conftest import Call

RATE = "output_tokens_per_s"


def remove(run: Path, *cell_ids: str) -> None:
    """As if never run: neither in the folder nor in the run's summary."""
    for cell_id in cell_ids:
        shutil.rmtree(run / "cells" / cell_id)
    (run / "summary.json").unlink()


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_few_pairs_give_figures_and_no_verdict(call: Call, a: Path, b: Path) -> None:
    remove(b, *(f"e{engine}-w0-r{repeat}" for engine in (0, 1) for repeat in (0, 2)))
    scale(b, {RATE: 0.5})
    answer = call("compare", a, b)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == (
        f"gpu_only on chat, {RATE}: B / A = 0.5 (0.5-0.5 in 4 pairs); no verdict below 5 pairs [emulated]"
    )
    assert lines[-1] == "no verdict: nothing has the 5 pairs that one needs"
    assert "left out: apex on chat, repeat 2 of A: B has no such cell" in lines
    assert "left out: a cell of B: e1-w0-r2: never run" in lines


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "failed", "error": "out of memory: 14 GiB\nTraceback"}, "failed: out of memory: 14 GiB"),
        ({"status": "invalid", "error": "reported 12 tokens early"}, "invalid: reported 12 tokens early"),
        ({"unfair": ["took 5 CPU threads, the envelope allows 4 (+25 %)"]}, "unfair: took 5 CPU threads, the envelope"),
    ],
)
def test_cells_that_do_not_count_are_listed_with_their_reasons(
    call: Call, a: Path, b: Path, change: dict[str, Any], reason: str
) -> None:
    change_cells(b, lambda cell: cell.update(change), engine="apex", repeat=3)
    answer = call("compare", a, b)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert "the same in all 5 pairs" in lines[1]
    assert lines[2].startswith(f"left out: apex on chat, repeat 3 of B: {reason}")


def test_wrong_tokens_once_and_no_repeat_counts(a: Path, b: Path) -> None:
    parity = {"checked_requests": 1, "checked_tokens": 1, "excused": 0, "held": False, "note": "request 3"}
    wrong = {"status": "invalid", "error": "wrong tokens: request 3", "parity": parity}
    change_cells(b, lambda cell: cell.update(wrong), engine="apex", repeat=3)
    found = compare_runs(a, b)
    assert [(each.engine, len(each.ratios)) for each in found.comparisons] == [("gpu_only", 6), ("apex", 0)]
    assert {each.reason for each in found.left_out} == {
        "invalid: wrong tokens: request 3",
        "invalid: its tokens were wrong in another repeat",
    }


def test_an_engine_of_one_run_only(a: Path, b: Path) -> None:
    change_cells(b, lambda cell: cell.update(engine="neo"), engine="apex")
    found = compare_runs(a, b)
    assert [each.engine for each in found.comparisons] == ["gpu_only"]
    assert {(each.run, each.engine, each.reason) for each in found.left_out} == {
        ("A", "apex", "B has no such cell"),
        ("B", "neo", "A has no such cell"),
    }


def test_half_a_run_is_compared_as_far_as_it_goes(a: Path, b: Path) -> None:
    (b / "cells" / "e0-w0-r1" / "summary.json").unlink()
    (b / "cells" / "e0-w0-r2" / "summary.json").write_text("{")
    (b / "summary.json").unlink()
    found = compare_runs(a, b)
    assert [len(each.ratios) for each in found.comparisons] == [4, 6]
    assert any("e0-w0-r1: begun, never finished" in each.reason for each in found.left_out)
    assert any("not readable as JSON" in each.reason for each in found.left_out)


def test_a_run_folder_without_its_cells(a: Path, b: Path) -> None:
    """Copied from elsewhere by somebody in a hurry: the run's summary is enough."""
    shutil.rmtree(b / "cells")
    assert [len(each.ratios) for each in compare_runs(a, b).comparisons] == [6, 6]


def test_a_metric_that_some_cells_lack(a: Path, b: Path) -> None:
    def lose(cell: dict[str, Any]) -> None:
        del cell["metrics"]["ttft_s_p99"]
        cell["unavailable"]["ttft_s_p99"] = "needs 368 independent observations, has 40"

    change_cells(b, lose, engine="apex", repeat=0)
    found = compare_runs(a, b, ["ttft_s_p99"])
    assert [len(each.ratios) for each in found.comparisons] == [6, 5]
    assert found.left_out[0].reason == "no ttft_s_p99: needs 368 independent observations, has 40"


# --- runs that are not compared ---------------------------------------------------------------------------------------


def test_labels_are_not_mixed(call: Call, a: Path, simulated: Path) -> None:
    answer = call("compare", a, simulated)
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert "differ (label emulated against simulated); --across compares them all the same" in answer.errors[0]


def test_across_warns_in_every_line(call: Call, a: Path, simulated: Path) -> None:
    answer = call("compare", a, simulated, "--across")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("WARNING, not comparable (label emulated against simulated): ") for line in lines)
    assert lines[0].endswith("[emulated against simulated]")
    data = json.loads(call("compare", a, simulated, "--across", "--json").out)
    assert data["warnings"] == ["label emulated against simulated"]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"machine.cpu": "EPYC 7B13"}, "cpu Xeon Platinum 8259CL against EPYC 7B13"),
        ({"machine.gpu": {"name": "Tesla T4"}}, "gpu none against Tesla T4"),
        ({"backend": "cuda"}, "backend cpu against cuda"),
        ({"config.hardware": "a10_g5_4xlarge"}, "hardware t4_g4dn_4xlarge against a10_g5_4xlarge"),
        ({"config.model": "llama-3.1-8b"}, "model llama-2-7b against llama-3.1-8b"),
        ({"config.budget.cpu_threads": 8}, "budget.cpu_threads 7 against 8"),
        ({"config.measure.seed": 1}, "seed 0 against 1"),
        ({"config.workloads": [{"kind": "chat", "requests": 5}]}, "workload chat.requests 4 against 5"),
    ],
)
def test_other_testbeds_are_refused(call: Call, a: Path, b: Path, changes: dict[str, Any], difference: str) -> None:
    change_manifest(b, changes)
    answer = call("compare", a, b)
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert f"({difference})" in answer.errors[0]
    assert call("compare", a, b, "--across").code == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"git_commit": "f" * 40, "versions": {"torch": "2.14.0"}, "created_utc": "2031-01-01T00:00:00Z"},
        {"config.engines": ["apex", "gpu_only"], "config.name": "another"},
        {"machine.memory_bytes": 67_000_000_000},
    ],
)
def test_what_is_compared_may_differ(a: Path, b: Path, changes: dict[str, Any]) -> None:
    change_manifest(b, changes)
    assert compare_runs(a, b).warnings == ()


def test_a_simulation_is_the_same_on_any_machine(simulated: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(simulated, tmp_path / "other"))
    change_manifest(other, {"machine.cpu": "EPYC 7B13"})
    assert compare_runs(simulated, other).warnings == ()


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_nothing_in_common(a: Path, b: Path) -> None:
    change_cells(b, lambda cell: cell.update(status="failed", error="it burnt"))
    with pytest.raises(ConfigError, match=r"no pair of valid cells: left out: gpu_only on chat, repeat 0 of B: failed"):
        compare_runs(a, b)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("speed", "there is no such metric; `harness list metrics` has them all"),
        ("ttft_s", "name one of its figures: ttft_s_mean"),
        ("steps", "neither more nor less of it is better"),
    ],
)
def test_metrics_that_cannot_be_compared(call: Call, a: Path, b: Path, metric: str, message: str) -> None:
    answer = call("compare", a, b, "--metric", metric)
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert message in answer.errors[0]


def test_folders_that_are_no_runs(call: Call, a: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        answer = call("compare", a, tmp_path / folder)
        assert (answer.code, len(answer.errors)) == (2, 1)
        assert folder in answer.errors[0]
    assert call("compare", a, a, "--threshold", "5").code == 2
    assert call("compare", a).code == 2
