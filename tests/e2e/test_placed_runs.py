"""A model twice as large as its accelerator, as a user runs it: simulated in seconds, emulated with real tensors, the
same journal and plans either way, and every budget kept.
"""

from pathlib import Path

import pytest
import yaml

from harness.build import JOURNAL_FILE, core_for
from harness.journal import replay
from harness.plan import CellSpec
from results.schema import Status
from results.store import RunFolder
from tests.e2e.commands import harness

TWINPILOTS = {"kind": "lp_balanced", "name": "twinpilots", "prompt_tokens": 16, "output_tokens": 12}
ENGINES = [
    {"kind": "static_partition", "name": "static", "context": 32, "slots": 4},
    {"kind": "weight_streaming", "name": "weight_streaming", "prefetch": True},
    TWINPILOTS,
    TWINPILOTS | {"name": "whole", "form": "integer"},
    TWINPILOTS | {"name": "flexgen", "planner": "flexgen"},
    TWINPILOTS | {"name": "packed", "planner": "flexgen", "compress": True, "gpu_batch": 2},
]
EXPERIMENT = {
    "schema_version": 1,
    "name": "placed",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "tiny-deep",
    "dtype": "float32",
    "budget": {
        "accel_memory": "54MiB",
        "host_memory": "1GiB",
        "cpu_threads": 1,
        "max_batch": 4,
        "max_batch_tokens": 64,
    },
    "engines": ENGINES,
    "workloads": [{"kind": "long_output", "prompt": 16, "output": 12, "jitter": 0.2, "requests": 6}],
    "emulation": {"pace": {"reference_model": "llama-2-13b", "tokens_each": 8}},
    "measure": {"time_limit_s": 200},
}


def run(here: Path, *arguments: str) -> RunFolder:
    (here / "placed.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    answer = harness("run", "--config", "placed.yaml", "--out", "out", *arguments, cwd=here)
    assert answer.code in (0, 4), answer.err
    [path] = (here / "out").iterdir()
    return RunFolder.open(path)


def test_simulated(tmp_path: Path) -> None:
    folder = run(tmp_path)
    cells = {cell.engine: cell for cell in folder.read_run_summary().cells}
    assert {cell.status for cell in cells.values()} == {Status.OK}, [cell.error for cell in cells.values()]
    rates = {engine: cell.metrics["output_tokens_per_s"] for engine, cell in cells.items()}
    assert rates["twinpilots"] > 1.5 * rates["flexgen"] > 1.5 * rates["weight_streaming"] * 0.9
    assert rates["packed"] > rates["flexgen"]
    imbalance = {engine: cell.metrics["load_imbalance"] for engine, cell in cells.items()}
    assert imbalance["twinpilots"] < 0.5 * imbalance["flexgen"]
    assert cells["twinpilots"].metrics["peak_host_bytes"] > 20 * 2**20
    for cell in cells.values():
        assert cell.metrics["prediction_error_percent_p50"] < 10.0
        assert 0 < cell.metrics["peak_accel_bytes"] <= 54 * 2**20
        assert 0 <= cell.metrics["peak_host_bytes"] <= 2**30
        spec = CellSpec.from_json((folder.cell_path(cell.cell_id) / "spec.json").read_text())
        replayed = replay(folder.cell_path(cell.cell_id) / JOURNAL_FILE, core_for(spec))
        assert replayed.first_difference is None


def test_on_real_tensors(tmp_path: Path) -> None:
    """At full speed: what is checked is that it runs, stays within its budgets, and answers as transformers does."""
    engines = [each for each in ENGINES if each["name"] in ("static", "twinpilots", "packed")]
    folder = run(tmp_path, "--backend", "cpu", "--set", "emulation={mode: native}", "--set", f"engines={engines}")
    cells = folder.read_run_summary().cells
    assert len(cells) == 3
    assert {cell.status for cell in cells} == {Status.OK}, [cell.error for cell in cells]
    assert {cell.label.value for cell in cells} == {"emulated"}
    for cell in cells:
        assert 0 < cell.metrics["peak_accel_bytes"] <= 54 * 2**20, cell.engine
        assert 0 <= cell.metrics["peak_host_bytes"] <= 2**30, cell.engine


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("engines=[{kind: static_partition, accel_layers: 33}]", "accel_layers: 33, the model has 32; use 0 to 32"),
        ("engines=[{kind: static_partition, accel_layers: 30}]", "do not fit the accelerator"),
        ("engines=[{kind: lp_balanced, planner: simplex}]", "planner"),
        ("engines=[{kind: lp_balanced, compress: true}]", "belong to planner: flexgen"),
        ("budget.host_memory=8MiB", "short of host_memory 8.0 MiB"),
    ],
)
def test_mistakes_are_said_before_anything_runs(tmp_path: Path, change: str, said: str) -> None:
    (tmp_path / "placed.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    answer = harness("run", "--config", "placed.yaml", "--out", "out", "--set", change, cwd=tmp_path)
    assert answer.code == 2
    assert said in answer.err
    assert all(line.startswith("error: ") for line in answer.err.splitlines())
    assert not (tmp_path / "out").exists()


def test_a_disk_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "placed.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    changes = (
        "engines=[{kind: weight_streaming}]",
        "budget.host_memory=30MiB",
        f"budget.disk_folder={tmp_path / 'missing'}",
        "backend=cpu",
        "budget.disk=1GiB",
    )
    sets = [part for change in changes for part in ("--set", change)]
    answer = harness("run", "--config", "placed.yaml", "--out", "out", *sets, cwd=tmp_path)
    assert answer.code == 2
    assert "budget.disk_folder" in answer.err
    assert "is no folder; name one that exists" in answer.err
