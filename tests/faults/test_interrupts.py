"""Ctrl-C, once and twice, a polite request to end, and a harness that is killed: the run folder survives them all."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.conftest import (
    Harness,
    Started,
    faulty,
    fingerprints,
    healthy,
    installed,
    is_running,
    litter,
    outcomes,
    the_run,
    wait_for,
)


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return installed(tmp_path)


def hanging(harness: Harness, started: Started, fault: str = "hang") -> tuple[subprocess.Popen[str], int]:
    """A run whose first cell is done and whose second one hangs; and the hanging process's id."""
    mark = harness.home / "mark"
    config = harness.config([healthy("first"), faulty(fault), healthy("last")])
    process = harness.start("run", "--config", config, "--out", "runs", env={"FAULTS_MARK": str(mark)})
    started.runs.append(process)
    wait_for(lambda: mark.exists() and bool(mark.read_text()), "the second cell")
    started.cells.append(int(mark.read_text()))
    return process, started.cells[-1]


def test_one_ctrl_c_ends_the_run_in_order(harness: Harness, started: Started) -> None:
    process, cell = hanging(harness, started)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert not is_running(cell)
    assert "--resume goes on" in out
    assert "Traceback" not in err
    run = the_run(harness.home / "runs")
    summary = json.loads((run.folder.path / "summary.json").read_text())
    assert [cell["engine"] for cell in summary["cells"]] == ["first"]
    assert outcomes(run) == {"first": "ok"}
    assert len(run.incomplete) == len(run.missing) == 1
    assert litter(run) == []
    assert harness("report", run.folder.path).code == 0
    kept = fingerprints(run, "first")

    resumed = harness("run", "--config", "faults.yaml", "--out", "runs", "--resume", env={"FAULTS": "off"})
    assert resumed.code == 0, resumed.err
    again = the_run(harness.home / "runs")
    assert outcomes(again) == {"first": "ok", "hang": "ok", "last": "ok"}
    assert fingerprints(again, "first") == kept


@pytest.mark.parametrize(("fault", "gap_s"), [("hang", 0.05), ("hang", 0.4), ("freeze", 0.15)])
def test_two_ctrl_c_leave_no_process_and_a_readable_folder(
    harness: Harness, started: Started, fault: str, gap_s: float
) -> None:
    """A frozen cell does not hear the polite request, so that only the second Ctrl-C shortens its grace."""
    process, cell = hanging(harness, started, fault)
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(gap_s)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began_s < 4, "the second Ctrl-C was not heard"
    assert process.returncode == 130, err
    assert not is_running(cell)
    assert "Traceback" not in out + err
    assert "Exception ignored" not in err
    run = the_run(harness.home / "runs")
    assert outcomes(run) == {"first": "ok"}
    assert (run.folder.path / "summary.json").is_file()


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGHUP])
def test_a_polite_request_to_end_is_like_ctrl_c(harness: Harness, started: Started, which: signal.Signals) -> None:
    process, cell = hanging(harness, started)
    process.send_signal(which)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert not is_running(cell)
    assert outcomes(the_run(harness.home / "runs")) == {"first": "ok"}


def test_a_harness_that_was_killed_is_resumed(harness: Harness, started: Started) -> None:
    process, _ = hanging(harness, started)
    process.kill()
    process.communicate(timeout=30)
    run = the_run(harness.home / "runs")
    assert outcomes(run) == {"first": "ok"}
    assert harness("report", run.folder.path).code == 0
    kept = fingerprints(run, "first")
    resumed = harness("run", "--config", "faults.yaml", "--out", "runs", "--resume", env={"FAULTS": "off"})
    assert resumed.code == 0, resumed.err
    again = the_run(harness.home / "runs")
    assert set(outcomes(again).values()) == {"ok"}
    assert fingerprints(again, "first") == kept


def test_two_processes_do_not_run_the_cells_of_one_folder(harness: Harness, started: Started) -> None:
    process, _ = hanging(harness, started)
    second = harness("run", "--config", "faults.yaml", "--out", "runs", "--resume")
    second.assert_one_line("another process is running cells in it")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert outcomes(the_run(harness.home / "runs")) == {"first": "ok"}
