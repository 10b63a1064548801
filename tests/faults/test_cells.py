"""Every way in which a cell can end badly, in one run: a kept result each, the others untouched; then --resume."""

from __future__ import annotations

import re

import pytest

from results.query import Run
from tests.faults.conftest import Answer, Harness, faulty, fingerprints, healthy, litter, outcomes, the_run

FAULTS = ("raise", "kill", "segfault", "memory", "hang")


@pytest.fixture(scope="module")
def stormy(harness: Harness) -> tuple[Answer, Run]:
    """A good cell, one cell per fault, a good cell."""
    config = harness.config([healthy("first"), *map(faulty, FAULTS), healthy("last")])
    limit = "measure.time_limit_s=8"
    answer = harness("run", "--config", config, "--out", "runs", "--set", limit)
    return answer, the_run(harness.home / "runs")


def test_the_run_is_partial_and_says_so_in_one_line_per_cell(stormy: tuple[Answer, Run]) -> None:
    answer, run = stormy
    assert answer.code == 4, answer.err
    assert outcomes(run) == {"first": "ok", **dict.fromkeys(FAULTS, "failed"), "last": "ok"}
    assert "Traceback" not in answer.err
    assert len([line for line in answer.err.splitlines() if line.startswith("[")]) == 7


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", r"exited with code 1: RuntimeError: the policy lost its way"),
        ("kill", r"killed by SIGKILL, most often the system's answer to running out of memory"),
        ("segfault", r"crashed with SIGSEGV: Segmentation fault"),
        ("memory", r"out of memory: MemoryError"),
        ("hang", r"timed out: not done within measure\.time_limit_s = 8 s"),
    ],
)
def test_each_failure_has_its_reason(stormy: tuple[Answer, Run], fault: str, reason: str) -> None:
    _, run = stormy
    (cell,) = (cell for cell in run.cells if cell.engine == fault)
    assert re.fullmatch(reason, cell.error or ""), cell.error
    assert (run.cell_dir(cell) / "error.txt").read_text().startswith(cell.error or "?")


@pytest.mark.parametrize("fault", ["raise", "segfault", "memory", "hang"])
def test_where_it_happened_is_kept(stormy: tuple[Answer, Run], fault: str) -> None:
    """Also where native code crashed, and where a cell hung."""
    _, run = stormy
    (cell,) = (cell for cell in run.cells if cell.engine == fault)
    assert re.search(r"faulty_engine\.py.*in strike", (run.cell_dir(cell) / "error.txt").read_text())


def test_failed_cells_leave_no_temporary_files(stormy: tuple[Answer, Run]) -> None:
    assert litter(stormy[1]) == []


def test_the_report_tells_of_every_failure(harness: Harness, stormy: tuple[Answer, Run]) -> None:
    _, run = stormy
    page = run.folder.path / "report.html"
    page.unlink()
    assert harness("report", run.folder.path).code == 0
    text = page.read_text()
    assert all(word in text for word in ("the policy lost its way", "SIGKILL", "out of memory", "timed out"))


def test_resume_runs_what_failed_and_what_is_half_written_only(harness: Harness, stormy: tuple[Answer, Run]) -> None:
    """A cell whose process and runner died together: no summary, a truncated table, somebody's temporary files."""
    _, run = stormy
    half = run.cell_dir(next(cell for cell in run.cells if cell.engine == "last"))
    (half / "summary.json").unlink()
    table = half / "requests.parquet"
    table.write_bytes(table.read_bytes()[:-100])
    (half / ".steps.parquet.0123abcd.tmp").write_bytes(b"PAR1")
    assert harness("report", run.folder.path).code == 0
    kept = fingerprints(run, "first")

    answer = harness("run", "--config", "faults.yaml", "--out", "runs", "--resume", env={"FAULTS": "off"})
    assert answer.code == 0, answer.err
    again = the_run(harness.home / "runs")
    assert set(outcomes(again).values()) == {"ok"}
    assert answer.err.count("kept from before") == 1
    assert fingerprints(again, "first") == kept
    assert litter(again) == []
    assert not list(again.folder.path.glob("cells/*/error.txt"))
    assert (again.folder.path / "report.html").is_file()
