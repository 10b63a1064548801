"""A disk that fills up while a cell runs: what was finished stays, the run stops, and --resume goes on with room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from results.query import Run, load_run
from tests.faults.conftest import Answer, Harness, healthy, installed, litter
from tests.faults.mounts import resize, small_disk

WORKLOADS = [
    {"kind": "batch", "name": "small", "batch": 4, "prompt": 16, "output": 12},
    {"kind": "batch", "name": "large", "batch": 20000, "prompt": 16, "output": 12},
    {"kind": "batch", "name": "later", "batch": 4, "prompt": 16, "output": 12},
]
ROOM = "400k"  # for the small cells and a report, not for the large cell
FILES_OF_AT_MOST = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return installed(tmp_path)


@pytest.fixture
def config(harness: Harness) -> Path:
    budget = {"accel_kv_tokens": 65536, "cpu_threads": 1, "max_batch": 256}
    return harness.config([healthy("engine")], workloads=WORKLOADS, budget=budget)


def statuses(run: Run) -> dict[str, str]:
    return {cell.workload: str(cell.status) for cell in run.cells}


def assert_stopped(answer: Answer, run: Run) -> None:
    """The cell that did not fit is a failed one with the reason, the one behind it was not tried."""
    assert answer.code == 4, answer.err
    assert "Traceback" not in answer.err
    assert "warning: stopped: disk full" in answer.err
    assert statuses(run) == {"small": "ok", "large": "failed"}
    assert next(cell.error or "" for cell in run.cells if cell.workload == "large").startswith("disk full: ")
    assert len(run.missing) == 1
    assert litter(run) == []


def test_a_disk_that_fills_up(harness: Harness, config: Path) -> None:
    with small_disk(harness.home / "disk", ROOM) as disk:
        answer = harness("run", "--config", config, "--out", disk)
        (path,) = disk.iterdir()
        assert_stopped(answer, load_run(path))
        assert harness("report", path).code == 0
        resize(disk, "32m")
        resumed = harness("run", "--config", config, "--out", disk, "--resume")
        assert resumed.code == 0, resumed.err
        assert set(statuses(load_run(path)).values()) == {"ok"}
        assert resumed.err.count("kept from before") == 1


def test_files_that_may_not_grow_are_a_full_disk(harness: Harness, config: Path) -> None:
    """The stand-in that needs no permission to mount: no file of the run may be larger than this."""
    answer = harness("run", "--config", config, "--out", "runs", before=FILES_OF_AT_MOST.format(size=60_000))
    (path,) = (harness.home / "runs").iterdir()
    assert_stopped(answer, load_run(path))
    resumed = harness("run", "--config", config, "--out", "runs", "--resume")
    assert resumed.code == 0, resumed.err
    assert set(statuses(load_run(path)).values()) == {"ok"}


def test_no_room_for_anything_at_all(harness: Harness, config: Path) -> None:
    answer = harness("run", "--config", config, "--out", "runs", before=FILES_OF_AT_MOST.format(size=100))
    answer.assert_one_line("--out: ")
    assert not list((harness.home / "runs").iterdir())


def test_no_room_for_the_runs_own_summary(harness: Harness, config: Path) -> None:
    """The cells' summaries are the truth, and each of them still fits."""
    with small_disk(harness.home / "disk", ROOM) as disk:
        first = harness("run", "--config", config, "--out", disk)
        (path,) = disk.iterdir()
        (path / "report.html").unlink(missing_ok=True)
        (path / "summary.json").unlink()
        (disk / "somebody-elses").write_bytes(b"x" * free_bytes(disk))
        answer = harness("run", "--config", config, "--out", disk, "--resume")
        assert (first.code, answer.code) == (4, 4)
        assert "Traceback" not in answer.err
        assert "No space left on device" in answer.err
        assert statuses(load_run(path))["small"] == "ok"


def free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize
