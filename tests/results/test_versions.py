"""Every version of the run folder that was ever written, as it was written, read by today's readers and the report.

versions/v<n>/ is a small real run of that version: one cell that finished, one whose process was killed. Never edit or
regenerate one: a later version that cannot read it has lost its users' results.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.plan import CellSpec
from reports.page import write_report
from results.query import load_run
from results.schema import REQUESTS, SCHEMA_VERSION, STEPS, Label, Status
from results.store import RunFolder, iter_requests, iter_steps, read_json, read_requests, read_samples, read_steps

VERSIONS = Path(__file__).parent / "versions"


def test_every_version_has_its_run() -> None:
    assert sorted(path.name for path in VERSIONS.iterdir()) == [
        f"v{version}" for version in range(1, SCHEMA_VERSION + 1)
    ]


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_the_report_is_rendered(version: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(VERSIONS / f"v{version}", run_dir)
    text = write_report(run_dir).read_text()
    assert "gpu_only_swap" in text
    assert "killed by SIGKILL" in text
    assert "emulated" in text


def test_version_1_of_a_run() -> None:
    run = load_run(VERSIONS / "v1")
    assert (run.manifest.name, run.manifest.label, run.manifest.backend) == ("version-1", Label.EMULATED, "cpu")
    assert (run.incomplete, run.missing, run.unreadable) == ((), (), {})
    assert run.verdicts
    finished, killed = run.cells
    assert (finished.engine, finished.status, killed.status) == ("gpu_only", Status.OK, Status.FAILED)
    assert finished.metrics["finished_requests"] == 4
    assert finished.metrics["output_tokens_per_s"] == pytest.approx(5.0, abs=0.5)
    assert finished.resolved["accel_kv_tokens"] == 160
    assert finished.unavailable["gpu_power_w"].startswith("no NVIDIA driver")
    assert (killed.error or "").startswith("killed by SIGKILL")
    assert RunFolder.open(VERSIONS / "v1").read_run_summary().cells == run.cells


def test_version_1_of_a_cells_tables() -> None:
    run = load_run(VERSIONS / "v1")
    cell_dir = run.cell_dir(run.cells[0])
    requests, steps, samples = read_requests(cell_dir), read_steps(cell_dir), read_samples(cell_dir)
    assert set(requests.columns) <= set(REQUESTS.names)
    assert set(steps.columns) <= set(STEPS.names)
    assert len(requests) == 5
    assert requests["warmup"].sum() == 1
    assert (requests["token_times_s"].map(len) == requests["output_tokens"]).all()
    assert steps["step"].is_monotonic_increasing
    assert (steps["ended_s"] >= steps["started_s"]).all()
    assert samples["time_s"].is_monotonic_increasing
    assert samples["process_rss_bytes"].dropna().gt(0).all()
    assert sum(batch.num_rows for batch in iter_requests(cell_dir)) == 5
    assert sum(batch.num_rows for batch in iter_steps(cell_dir)) == len(steps)


def test_version_1_of_a_specification() -> None:
    """From before a run's common limit was written into it: then each cell had its own."""
    for path in sorted((VERSIONS / "v1").glob("cells/*/spec.json")):
        spec = CellSpec.from_json(path.read_bytes())
        assert spec.cell_id == path.parent.name
        assert spec.max_request_tokens is None
    assert read_json(VERSIONS / "v1" / "manifest.json")
