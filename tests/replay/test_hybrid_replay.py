"""What the hybrids decide depends on their journal alone, the answers of cohorts in flight included."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.build import JOURNAL_FILE, core_for
from harness.cell import run_cell
from harness.journal import replay
from harness.plan import CellSpec
from results.store import read_requests, read_steps
from tests.model_folders import make_folder
from tests.replay.forgery import lines_of, rewrite
from tests.replay.test_replay import starving

ENGINES: dict[str, dict[str, Any]] = {
    "static_partition": {"kind": "static_partition", "host_share": 0.5},
    "neo": {"kind": "neo"},
    "apex": {"kind": "apex"},
    "async_overlap": {"kind": "apex", "mode": "async_overlap"},
}


def spec_of(model: Path, engine: dict[str, Any], mode: str) -> CellSpec:
    return starving(model, mode, engine, host_kv_tokens=4096, max_batch=12, max_batch_tokens=96)


@pytest.mark.parametrize("mode", ["native", "paced"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_journal_replays_to_identical_plans(engine: str, mode: str, model_root: Path, tmp_path: Path) -> None:
    spec = spec_of(make_folder(model_root, kv_heads=2), ENGINES[engine], mode)
    (tmp_path / "spec.json").write_text(spec.to_json())
    run_cell(tmp_path)
    requests, steps = read_requests(tmp_path), read_steps(tmp_path)
    assert (requests["status"] == "finished").all()
    assert (requests["output_tokens"] == requests["asked_tokens"]).all()
    assert steps["host_blocks_used"].max() > 0
    replayed = replay(tmp_path / JOURNAL_FILE, core_for(spec))
    assert replayed.first_difference is None
    assert replayed.steps == len(steps)


def test_another_answer_of_a_cohort_is_noticed(model_root: Path, tmp_path: Path) -> None:
    spec = spec_of(make_folder(model_root, kv_heads=2), ENGINES["async_overlap"], "native")
    (tmp_path / "spec.json").write_text(spec.to_json())
    run_cell(tmp_path)
    journal = tmp_path / JOURNAL_FILE
    answered = [
        index
        for index, line in enumerate(lines_of(journal))
        if line.get("answers") and line["answers"][0][0] not in line.get("finished_cohorts", ())
    ]
    assert answered, "no cohort outlived a step"

    def tamper(lines: list[dict[str, Any]]) -> None:
        answer = lines[answered[len(answered) // 2]]["answers"][0]
        answer[2] = not answer[2]

    forged = rewrite(journal, tmp_path / "forged.gz", tamper)
    assert replay(forged, core_for(spec)).first_difference is not None
    assert json.loads(spec.to_json())["engine"]["kind"] == "apex"
