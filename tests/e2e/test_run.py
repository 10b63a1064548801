"""A whole `harness run`: complete folders, honest labels, journals that replay, a simulator that emulation confirms.

One configuration on both backends. Its ops are paced at several milliseconds and more, so that the modelled times stand
far above what a busy machine adds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness.build import JOURNAL_FILE, core_for
from harness.journal import replay
from harness.plan import CellSpec
from harness.runner import PARTIAL_EXIT_CODE
from results.schema import CellSummary, Status
from results.store import RunFolder, read_requests, read_samples, read_steps
from tests.e2e.commands import Answer, harness

EXPERIMENT = {
    "schema_version": 1,
    "name": "twice",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "tiny-1m",
    "dtype": "float32",
    "budget": {"accel_kv_tokens": 512, "cpu_threads": 1, "max_batch": 4, "max_batch_tokens": 32},
    "engines": ["gpu_only"],
    "workloads": [{"kind": "long_output", "prompt": 10, "output": 8, "jitter": 0.2, "requests": 8}],
    "emulation": {"pace": {"reference_model": "llama-2-7b", "time_scale": 30, "tokens_each": 20}},
    "measure": {"warmup_requests": 1, "seed": 3, "time_limit_s": 100},
}
LABELS = {"sim": "simulated", "cpu": "emulated"}
ATTEMPTS = 3
pytestmark = pytest.mark.alone


@dataclass(frozen=True)
class Run:
    backend: str
    answer: Answer
    path: Path

    @property
    def folder(self) -> RunFolder:
        return RunFolder.open(self.path)

    @property
    def cell(self) -> CellSummary:
        [cell] = self.folder.read_run_summary().cells
        return cell

    @property
    def cell_dir(self) -> Path:
        return self.folder.cell_path(self.cell.cell_id)

    @property
    def makespan_s(self) -> float:
        return float(read_steps(self.cell_dir)["ended_s"].iloc[-1])


def start(backend: str, here: Path) -> Run:
    (here / "twice.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    answer = harness("run", "--config", "twice.yaml", "--backend", backend, "--out", "out", cwd=here)
    assert answer.code in (0, PARTIAL_EXIT_CODE), answer.err
    [path] = (here / "out").iterdir()
    return Run(backend, answer, path)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start("sim", tmp_path_factory.mktemp("sim"))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A cell that a busy machine made invalid says so itself, and is tried again; never is it left out."""
    overruns = []
    for _ in range(ATTEMPTS):
        run = start("cpu", tmp_path_factory.mktemp("cpu"))
        if run.cell.status is not Status.INVALID:
            return run
        overruns.append(f"{run.cell.metrics['overrun_share']:.1%}")
    pytest.fail(f"this machine is too busy to emulate: {', '.join(overruns)} of the ops overran in {ATTEMPTS} attempts")


@pytest.fixture(params=["simulated", "emulated"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


def test_it_ends_well_and_says_where_things_are(run: Run) -> None:
    assert run.answer.code == 0, run.answer.err
    assert run.cell.status is Status.OK
    report = run.path / "report.html"
    assert f"results: {run.path.relative_to(run.path.parents[1])}" in run.answer.out
    assert f"report:  {report.relative_to(run.path.parents[1])}" in run.answer.out
    assert "no report" not in run.answer.err


def test_the_folder_is_complete(run: Run) -> None:
    assert {path.name for path in run.path.iterdir()} == {"manifest.json", "summary.json", "report.html", "cells"}
    expected = {"spec.json", "requests.parquet", "steps.parquet", "journal.jsonl.gz", "summary.json", "trace.json"}
    if run.backend == "cpu":
        expected.add("samples.parquet")
        assert "time_s" in read_samples(run.cell_dir)
    else:
        assert "no machine to sample" in run.cell.unavailable["samples"]
    found = {path.name for path in run.cell_dir.iterdir()}
    assert expected <= found
    assert not [name for name in found if name == "error.txt" or name.startswith(".")], "nothing failed or was left"


def test_every_label_is_right(run: Run) -> None:
    label = LABELS[run.backend]
    manifest = run.folder.manifest
    assert (manifest.label, manifest.backend, manifest.config["backend"]) == (label, run.backend, run.backend)
    assert (run.cell.label, run.cell.backend) == (label, run.backend)
    assert json.loads((run.cell_dir / "trace.json").read_text())["otherData"] == {"label": label}
    assert label in run.answer.out
    report = (run.path / "report.html").read_text()
    others = {*LABELS.values(), "measured"} - {label}
    assert label in report
    assert f"({label}" in run.answer.err
    assert not any(f"({other}" in run.answer.err for other in others)


def test_the_records_hold_the_whole_run(run: Run) -> None:
    requests, steps = read_requests(run.cell_dir), read_steps(run.cell_dir)
    assert (requests["status"] == "finished").all()
    assert len(requests) == 8
    assert requests["warmup"].sum() == 1
    assert (requests["output_tokens"] == requests["asked_tokens"]).all()
    assert run.cell.metrics["steps"] == len(steps)
    assert steps["prefill_tokens"].sum() == requests["prompt_tokens"].sum()
    assert steps["decode_rows"].sum() == (requests["output_tokens"] - 1).sum()
    assert (steps["started_s"] < steps["ended_s"]).all()
    assert (steps["started_s"].to_numpy()[1:] >= steps["ended_s"].to_numpy()[:-1]).all()


def test_the_journal_replays(run: Run) -> None:
    spec = CellSpec.from_json((run.cell_dir / "spec.json").read_bytes())
    replayed = replay(run.cell_dir / JOURNAL_FILE, core_for(spec))
    assert replayed.first_difference is None
    assert replayed.steps == run.cell.metrics["steps"] > 10


def test_the_emulation_takes_as_long_as_the_simulation_says(simulated: Run, emulated: Run) -> None:
    """The proof of the simulator as of the emulation: real threads and tensors, paced alike, end within 5 %."""
    assert 2.0 < simulated.makespan_s < 10.0, "seconds, beside which a machine's noise is small"
    assert emulated.makespan_s == pytest.approx(simulated.makespan_s, rel=0.05)
    plans = [read_steps(run.cell_dir)[["decode_rows", "prefill_tokens"]] for run in (simulated, emulated)]
    assert plans[0].equals(plans[1]), "the same requests at the same time give the same steps"
