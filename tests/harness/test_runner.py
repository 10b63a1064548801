"""The runner against real processes that crash, hang, are killed or lie: every ending is kept, the others go on."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.child import Progress
from harness.config import load_experiment
from harness.errors import ConfigError
from harness.plan import CellSpec
from harness.progress import Silence
from harness.runner import RunOutcome, run_experiment
from results.errors import ResultsError
from results.schema import CellSummary, Status
from results.store import RunFolder
from tests.harness.conftest import REPOSITORY, Write

FAKE = "tests.harness.fake_cell"
Run = Callable[..., RunOutcome]


class Seen(Silence):
    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.ended: list[str] = []
        self.skipped: list[str] = []
        self.closed = False

    def cell_skipped(self, cell: CellSpec) -> None:
        self.skipped.append(cell.engine.name)

    def cell_progressed(self, progress: Progress) -> None:
        self.progress.append(progress)

    def cell_ended(self, cell: CellSpec, summary: CellSummary, wall_s: float) -> None:
        self.ended.append(cell.engine.name)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def _ctrl_c_comes_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen) -> Run:
    """Run three engines whose cells behave as told."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr("harness.child.GRACE_S", 0.3)

    def go(behaviour: str, *, time_limit_s: float = 20, resume: bool = False, sets: tuple[str, ...] = ()) -> RunOutcome:
        monkeypatch.setenv("FAKE_CELL", behaviour)
        engines = [{"kind": "gpu_only", "name": name} for name in "abc"]
        config = write(engines=engines, measure={"time_limit_s": time_limit_s})
        experiment = load_experiment(str(config), sets)
        return run_experiment(experiment, tmp_path / "runs", seen, resume=resume, module=FAKE)

    return go


def errors(outcome: RunOutcome) -> dict[str, str]:
    return {cell.engine: cell.error or str(cell.status) for cell in outcome.summary.cells}


def test_good_cells(run: Run, seen: Seen) -> None:
    outcome = run("ok,ok,ok")
    assert outcome.exit_code == 0
    assert errors(outcome) == {"a": "ok", "b": "ok", "c": "ok"}
    assert seen.progress == [Progress(1, 2, 0.5)] * 3
    assert seen.ended == ["a", "b", "c"]
    assert seen.closed
    manifest = json.loads((outcome.run_dir / "manifest.json").read_text())
    assert manifest["label"] == "simulated"
    assert manifest["config"]["budget"]["max_batch"] == 8
    assert [cell.cell_id for cell in outcome.summary.cells] == manifest["cells_planned"]
    assert not list(outcome.run_dir.glob("cells/*/stderr.log"))
    assert outcome.report is not None
    assert outcome.report.is_file(), outcome.warnings


def test_failures_are_results_and_the_others_go_on(run: Run) -> None:
    outcome = run("crash,kill,ok")
    assert outcome.exit_code == 4
    found = errors(outcome)
    assert found["a"] == "exited with code 1: RuntimeError: the engine lost its way"
    assert found["b"].startswith("killed by SIGKILL")
    assert found["c"] == "ok"
    failed = next(cell for cell in outcome.summary.cells if cell.engine == "a")
    text = (outcome.run_dir / "cells" / failed.cell_id / "error.txt").read_text()
    assert "Traceback" in text


def test_more_ways_to_fail(run: Run) -> None:
    found = errors(run("memory,segfault,silent"))
    assert found["a"].startswith("out of memory: MemoryError")
    assert found["b"].startswith("crashed with SIGSEGV")
    assert "without a summary" in found["c"]


def test_a_summary_counts_however_the_process_ended_but_not_a_torn_one(run: Run) -> None:
    outcome = run("broken,torn,invalid")
    found = errors(outcome)
    assert found["a"] == "ok"
    assert "summary.json" in found["b"]
    assert found["c"] == "invalid"
    assert outcome.exit_code == 4


def test_a_cell_that_hangs_is_ended_with_all_it_started(run: Run) -> None:
    began_s = time.monotonic()
    outcome = run("hang,stubborn,ok", time_limit_s=1.5)
    assert time.monotonic() - began_s < 20
    found = errors(outcome)
    assert found["a"] == "timed out: not done within measure.time_limit_s = 1.5 s"
    assert found["b"].startswith("timed out")
    assert found["c"] == "ok"
    assert_gone(outcome)


def test_what_a_good_cell_leaves_running_is_ended_too(run: Run) -> None:
    began_s = time.monotonic()
    outcome = run("talk,ok,ok")
    assert time.monotonic() - began_s < 20
    assert outcome.exit_code == 0
    assert_gone(outcome)


def assert_gone(outcome: RunOutcome) -> None:
    (pid_file,) = outcome.run_dir.glob("cells/*/child.pid")
    status = Path(f"/proc/{pid_file.read_text()}/status")
    for _ in range(50):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    pytest.fail("a grandchild outlived its cell")


def test_resume_runs_what_is_missing_or_failed_only(run: Run, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("ok,crash,invalid")
    monkeypatch.setenv("FAKE_ATTEMPT", "2")
    again = run("ok,ok,ok", resume=True)
    assert again.run_dir == first.run_dir
    assert again.exit_code == 4  # an invalid cell is a finding, not an accident
    assert seen.skipped == ["a", "c"]
    attempts = {cell.engine: cell.metrics["attempt"] for cell in again.summary.cells}
    assert attempts == {"a": 1.0, "b": 2.0, "c": 1.0}
    repaired = next(cell for cell in again.summary.cells if cell.engine == "b")
    assert not (again.run_dir / "cells" / repaired.cell_id / "error.txt").exists()


def test_resume_wants_the_same_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no run of small"):
        run("ok,ok,ok", resume=True)
    run("ok,ok,ok")
    run("ok,ok,ok", resume=True, time_limit_s=30)  # more time changes no number
    with pytest.raises(ConfigError, match="another configuration"):
        run("ok,ok,ok", resume=True, sets=("budget.max_batch=4",))
    monkeypatch.setattr("harness.opening.versions", lambda: {"python": "2.7"})
    with pytest.raises(ConfigError, match="other versions"):
        run("ok,ok,ok", resume=True)


def test_an_interrupt_ends_the_cell_and_keeps_what_is_done(run: Run, seen: Seen, tmp_path: Path) -> None:
    interrupter = threading.Thread(target=_interrupt_when, args=(lambda: len(seen.progress) == 2,))
    interrupter.start()
    outcome = run("ok,hang,ok")
    interrupter.join()
    assert outcome.interrupted
    assert outcome.exit_code == 130
    assert seen.closed
    assert errors(outcome) == {"a": "ok"}
    assert json.loads((outcome.run_dir / "summary.json").read_text())["cells"][0]["status"] == "ok"
    resumed = run("ok,ok,ok", resume=True)
    assert resumed.exit_code == 0
    assert {cell.status for cell in resumed.summary.cells} == {Status.OK}


def test_a_run_folder_that_takes_no_more_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = RunFolder.write_cell_summary

    def full(folder: RunFolder, summary: CellSummary) -> None:
        if summary.engine == "b":
            raise ResultsError("summary.json: cannot be written: No space left on device")
        honest(folder, summary)

    monkeypatch.setattr(RunFolder, "write_cell_summary", full)
    outcome = run("crash,crash,ok")
    assert (outcome.exit_code, outcome.stopped, outcome.report) == (4, True, None)
    assert list(errors(outcome)) == ["a"]
    assert any("No space left" in warning and "--resume" in warning for warning in outcome.warnings)


def test_a_summary_that_cannot_be_written_is_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: RunFolder, verdicts: object = ()) -> None:
        raise ResultsError("summary.json: cannot be written: No space left on device")

    monkeypatch.setattr(RunFolder, "write_run_summary", full)
    outcome = run("ok,ok,ok")
    assert (outcome.exit_code, outcome.stopped) == (4, True)
    assert errors(outcome) == {"a": "ok", "b": "ok", "c": "ok"}
    assert "the cells' own summaries are kept" in outcome.warnings[0]


def test_a_summary_torn_since_does_not_hide_the_others(run: Run, seen: Seen) -> None:
    first = run("ok,ok,ok")
    torn = first.run_dir / "cells" / first.summary.cells[2].cell_id / "summary.json"
    torn.write_text("{")
    interrupter = threading.Thread(target=_interrupt_when, args=(lambda: len(seen.progress) == 4,))
    interrupter.start()
    outcome = run("ok,ok,hang", resume=True)
    interrupter.join()
    assert outcome.exit_code == 130
    assert errors(outcome) == {"a": "ok", "b": "ok"}


def test_a_manifest_that_cannot_be_written_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: RunFolder, manifest: object) -> None:
        raise ResultsError("manifest.json: cannot be written: No space left on device")

    monkeypatch.setattr(RunFolder, "write_manifest", full)
    with pytest.raises(ConfigError, match=r"--out: manifest\.json: cannot be written"):
        run("ok,ok,ok")
    assert not list((tmp_path / "runs").iterdir())


def test_a_busy_machine_is_a_warning_where_time_is_real(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    simulated = run("ok,ok,ok")
    assert simulated.warnings == ()
    manifest = json.loads((simulated.run_dir / "manifest.json").read_text())
    assert manifest["machine"]["load_average"] == 99.0
    assert "load average 99" in manifest["machine"]["load_warning"]
    emulated = run("ok,ok,ok", sets=("backend=cpu", "dtype=float32"))
    assert any("load average 99" in warning for warning in emulated.warnings)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    quiet = run("ok,ok,ok", sets=("backend=cpu", "dtype=float32"))
    assert not any("load average" in warning for warning in quiet.warnings)
    assert "load_warning" not in json.loads((quiet.run_dir / "manifest.json").read_text())["machine"]


def _interrupt_when(ready: Callable[[], bool]) -> None:
    """Ctrl-C, as the terminal sends it; gives up in time for the test to fail by itself."""
    for _ in range(200):
        if ready():
            os.kill(os.getpid(), signal.SIGINT)
            return
        time.sleep(0.05)
