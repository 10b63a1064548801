"""`harness` as its users run it, in a process of its own, with a plugin among the engines that fails as told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from results.query import Run, load_run

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = "from harness.cli import main; main()"
PATIENCE_S = 60.0

SMALL: dict[str, Any] = {
    "schema_version": 1,
    "name": "faults",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "tiny-1m",
    "dtype": "float16",
    "budget": {"accel_kv_tokens": 4096, "host_kv_tokens": 8192, "cpu_threads": 1, "max_batch": 8},
    "workloads": [{"kind": "batch", "batch": 4, "prompt": 16, "output": 12}],
    "measure": {"repeats": 1, "seed": 0, "time_limit_s": 60},
}


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str

    def assert_one_line(self, part: str) -> None:
        """A mistake of the user, as the user sees it."""
        assert self.code == 2, self
        assert len(self.err.splitlines()) == 1, self.err
        assert self.err.startswith("error: "), self.err
        assert part in self.err, self.err


@dataclass(frozen=True, slots=True)
class Harness:
    """Commands in the folder `home`, with the plugin installed."""

    home: Path

    def __call__(self, *arguments: object, env: Mapping[str, str] | None = None, before: str = "") -> Answer:
        """`before`: Python that is run first in the process, to take something away from it."""
        process = self.start(*arguments, env=env, before=before)
        out, err = process.communicate(timeout=PATIENCE_S)
        return Answer(process.returncode, out, err)

    def start(
        self, *arguments: object, env: Mapping[str, str] | None = None, before: str = ""
    ) -> subprocess.Popen[str]:
        plugins = os.pathsep.join([str(self.home / "plugins"), str(REPOSITORY)])
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HARNESS_SET_", "FAULTS"))}
        return subprocess.Popen(
            [sys.executable, "-c", before + PROGRAM, *map(str, arguments)],
            cwd=self.home,
            env=clean | {"PYTHONPATH": plugins} | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def config(self, engines: Sequence[object], **changes: Any) -> Path:
        path = self.home / "faults.yaml"
        path.write_text(yaml.safe_dump(SMALL | {"engines": list(engines)} | changes))
        return path


def healthy(name: str) -> dict[str, str]:
    return {"kind": "gpu_only", "name": name}


def faulty(fault: str) -> dict[str, str]:
    return {"kind": "faulty", "name": fault, "fault": fault}


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return installed(tmp_path_factory.mktemp("faults"))


def installed(home: Path) -> Harness:
    metadata = home / "plugins" / "faulty_engine-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-engine\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[harness.engines]\nfaulty = tests.faults.faulty_engine:Faulty\n")
    return Harness(home)


def the_run(out: Path) -> Run:
    """The one run in this folder, read as the report reads it."""
    (path,) = out.iterdir()
    return load_run(path)


def outcomes(run: Run) -> dict[str, str]:
    return {cell.engine: str(cell.status) for cell in run.cells}


def fingerprints(run: Run, engine: str) -> dict[str, tuple[int, bytes]]:
    """Every file of an engine's cell: when it was written, and what is in it."""
    (folder,) = (run.cell_dir(cell) for cell in run.cells if cell.engine == engine)
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def litter(run: Run) -> list[str]:
    return [str(path.relative_to(run.folder.path)) for path in run.folder.path.rglob(".*")]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@dataclass(slots=True)
class Started:
    """What does not outlive its test, however that ends: runs, and the processes of cells."""

    runs: list[subprocess.Popen[str]] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)


@pytest.fixture
def started() -> Iterator[Started]:
    begun = Started()
    yield begun
    for run in begun.runs:
        if run.poll() is None:
            run.kill()
        run.communicate()
    for cell in filter(is_running, begun.cells):
        os.kill(cell, signal.SIGKILL)
