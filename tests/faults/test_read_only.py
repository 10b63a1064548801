"""An output that cannot be written is the user's to mend: exit code 2 and one line, before any cell is run.

Permissions do not bind root, so the folder is read-only by its file system, or stands under a file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Harness, healthy, installed
from tests.faults.mounts import make_read_only, small_disk


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return installed(tmp_path)


def test_an_output_under_a_file(harness: Harness) -> None:
    (harness.home / "file").write_text("")
    config = harness.config([healthy("engine")])
    harness("run", "--config", config, "--out", "file/runs").assert_one_line("--out: file/runs: cannot be written")
    harness("report", "file/runs").assert_one_line("no such run folder")


def test_a_read_only_file_system(harness: Harness) -> None:
    config = harness.config([healthy("engine")])
    with small_disk(harness.home / "disk", "8m") as disk:
        assert harness("run", "--config", config, "--out", disk).code == 0
        (path,) = disk.iterdir()
        make_read_only(disk)
        harness("run", "--config", config, "--out", disk).assert_one_line("Read-only file system")
        harness("run", "--config", config, "--out", disk, "--resume").assert_one_line("Read-only file system")
        harness("report", path).assert_one_line("Read-only file system")
