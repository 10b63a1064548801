"""Runs of honest and of cheating engines, made once: in virtual time in this process, or as a user makes one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import harness.cell
from harness.experiment import Experiment
from harness.plan import CellSpec, expand
from harness.progress import Silence
from harness.runner import run_experiment
from harness.verdicts import verdicts
from results.files import write_text
from results.query import Run, load_run
from results.schema import CellSummary, Label, Manifest
from results.store import RunFolder
from tests.cheating.cheats import cheating_build

REPOSITORY = Path(__file__).resolve().parents[2]
BUDGET = {"accel_kv_tokens": 480, "host_kv_tokens": 1024, "cpu_threads": 1, "max_batch": 16, "max_batch_tokens": 256}
SIMULATED: dict[str, Any] = {
    "schema_version": 1,
    "name": "cheats",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "llama-2-7b",
    "dtype": "float16",
    "budget": BUDGET,
    "workloads": [{"kind": "long_output", "prompt": 60, "output": 30, "requests": 30}],
    "measure": {"repeats": 5, "seed": 1, "draws": 1},  # one other machine is enough to see bands left out
}
EMULATED: dict[str, Any] = SIMULATED | {
    "backend": "cpu",
    "model": "tiny-1m",
    "dtype": "float32",
    "emulation": {"mode": "native"},
    "workloads": [{"kind": "batch", "batch": 12, "prompt": 40, "output": 12}],
    "measure": {"repeats": 1, "warmup_requests": 2, "seed": 1, "time_limit_s": 120},
}


@dataclass(frozen=True)
class Caught:
    """A finished run, asked about its engines by name."""

    path: Path

    @property
    def run(self) -> Run:
        return load_run(self.path)

    def cells(self, engine: str) -> list[CellSummary]:
        found = [cell for cell in self.run.cells if cell.engine == engine]
        assert found, f"no cell of {engine}"
        return found

    def cell(self, engine: str) -> CellSummary:
        return self.cells(engine)[0]


def experiment(values: dict[str, Any], *engines: str) -> Experiment:
    return Experiment.model_validate(values | {"engines": [{"kind": "gpu_only", "name": name} for name in engines]})


def simulate(out_dir: Path, cells: list[CellSpec], config: dict[str, Any]) -> Path:
    """What the runner does, without a process per cell: nothing here depends on real time."""
    folder = RunFolder.create(out_dir, "cheats")
    folder.write_manifest(Manifest("cheats", Label.SIMULATED, "sim", config=config))
    for spec in cells:
        cell_dir = folder.cell_dir(spec.cell_id)
        write_text(cell_dir / "spec.json", spec.to_json())
        folder.write_cell_summary(harness.cell.run_cell(cell_dir))
    summary = folder.write_run_summary()
    folder.write_run_summary(verdicts([cell.to_json() for cell in summary.cells]))
    return folder.path


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Caught:
    """Five repeats of each, so that verdicts are possible."""
    names = ("gpu_only", "honest", "early", "greedy", "greedy_liar", "generous", "cut_short", "haunted")
    asked = experiment(SIMULATED, *names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.cell, "build", cheating_build)
        folder = tmp_path_factory.mktemp("simulated")
        return Caught(simulate(folder, expand(asked, "sim"), asked.model_dump(mode="json")))


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Caught:
    """Real tokens, cell by cell in processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        outcome = run_experiment(
            experiment(EMULATED, "gpu_only", "wrong_token", "early"),
            tmp_path_factory.mktemp("emulated"),
            Silence(),
            module="tests.cheating.cheats",
        )
    return Caught(outcome.run_dir)
