"""Regret: what other modes would have made of the very states that a run went through."""

from pathlib import Path
from typing import Any

import pytest

from engines.core.types import Mode
from harness.build import JOURNAL_FILE
from harness.cell import run_cell
from harness.experiment import Experiment
from harness.hindsight import Hindsight, Verdict, judge
from harness.plan import CellSpec, expand
from results.schema import CellSummary
from results.store import read_steps
from tests.replay.forgery import rewrite

EXPERIMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "regretted",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "llama-2-7b",
    "dtype": "float16",
    "budget": {"accel_kv_tokens": 2400, "host_memory": "40GiB", "max_batch": 64, "max_batch_tokens": 2048},
    "workloads": [{"kind": "long_output", "prompt": 300, "output": 60, "jitter": 0.2, "requests": 24}],
    "measure": {"warmup_requests": 1},
}


def spec_of(**engine: str) -> CellSpec:
    [cell] = expand(Experiment.model_validate(EXPERIMENT | {"engines": [engine]}), "sim")
    return cell


def served(folder: Path, **engine: str) -> CellSummary:
    (folder / "spec.json").write_text(spec_of(**engine).to_json())
    return run_cell(folder)


def test_a_mode_that_leaves_the_host_idle_regrets_it(tmp_path: Path) -> None:
    metrics = served(tmp_path, kind="apex", mode="gpu_only").metrics
    assert metrics["regret_share"] > 0.3
    assert metrics["mode_share_gpu_only"] > 0.9
    assert metrics.get("best_share_gpu_only", 0.0) < 0.5


def test_whoever_follows_the_cost_model_has_little_to_regret(tmp_path: Path) -> None:
    regret = {}
    in_turns = {"kind": "static_partition", "host_share": 0.5}
    engines: dict[str, dict[str, Any]] = {"predicted": {}, "in turns": in_turns}
    for name, engine in engines.items():
        folder = tmp_path / name
        folder.mkdir()
        metrics = served(folder, **({"kind": "apex"} | engine)).metrics
        shares = [value for key, value in metrics.items() if key.startswith("mode_share_")]
        assert sum(shares) == pytest.approx(1.0)
        assert sum(value for key, value in metrics.items() if key.startswith("best_share_")) == pytest.approx(1.0)
        regret[name] = metrics["regret_share"]
    assert regret["predicted"] < 0.05
    assert regret["in turns"] > 2 * regret["predicted"]


def test_one_mode_has_nothing_to_regret(tmp_path: Path) -> None:
    summary = served(tmp_path, kind="gpu_only")
    assert "regret_share" not in summary.metrics
    assert summary.unavailable["regret_share"] == "its KV is on the GPU alone: it has one mode"


def test_a_journal_of_another_run_is_not_judged(tmp_path: Path) -> None:
    served(tmp_path, kind="apex")
    took_s = dict.fromkeys(read_steps(tmp_path)["step"], 1.0)

    def tamper(lines: list[dict[str, Any]]) -> None:
        lines[len(lines) // 2]["plan"] = "0" * 16

    forged = rewrite(tmp_path / JOURNAL_FILE, tmp_path / "forged.gz", tamper)
    assert "does not replay" in str(judge(spec_of(kind="apex"), forged, lambda: took_s))
    assert isinstance(judge(spec_of(kind="apex"), tmp_path / JOURNAL_FILE, lambda: took_s), Hindsight)


def test_shares_are_of_time_and_not_of_steps() -> None:
    verdicts = [Verdict(1, Mode.GPU_ONLY, Mode.ASYMMETRIC, 0.5), Verdict(2, Mode.ASYMMETRIC, Mode.ASYMMETRIC, 0.0)]
    seen = Hindsight.of(verdicts, {1: 1.0, 2: 3.0})
    assert seen is not None
    assert seen.metrics() == {
        "regret_share": 0.125,
        "mode_share_gpu_only": 0.25,
        "mode_share_asymmetric": 0.75,
        "best_share_asymmetric": 1.0,
    }
    assert Hindsight.of([], {}) is None
