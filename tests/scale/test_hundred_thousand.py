"""100,000 requests through `harness run` and `harness report`: memory is bounded, and does not follow their number.

Peaks are those of the processes themselves (getrusage), each in a fresh one. Times are not asserted but for the whole:
machines differ. What grows is the list of requests that are still to come, about 300 bytes each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from results.query import load_run
from results.store import iter_requests

REPOSITORY = Path(__file__).resolve().parents[2]
HARNESS = ("-c", "from harness.cli import main; main()")
FEW, MANY = 20_000, 100_000

MOST_CELL_BYTES = 350 << 20  # 210 MB on the machine where this was written, of which 160 are imported libraries
MOST_GROWTH_BYTES_PER_REQUEST = 600  # a record in memory would be 2,000 and more
MOST_RUN_BYTES = 700 << 20  # with the report's plotting libraries
MOST_REPORT_BYTES = 8 << 20

CONFIG = {
    "schema_version": 1,
    "name": "scale",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "llama-2-7b",
    "dtype": "float16",
    "budget": {"accel_kv_tokens": 2400, "cpu_threads": 7, "max_batch": 256},
    "engines": ["gpu_only"],
    # 8 to 16 tokens in, 4 to 8 out, at a rate that a T4 holds: a queue that only grows would be bounded by nothing.
    "workloads": [{"kind": "long_output", "requests": FEW, "prompt": 12, "output": 6, "jitter": 0.33, "rate": 60}],
    "measure": {"repeats": 1, "seed": 0, "time_limit_s": 300, "draws": 1},
}


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    peak_bytes: int  # of the largest process in the tree


# getrusage will not do: a process inherits the peak of the one that started it, and the tests' own may be large. The
# kernel's high-water mark belongs to the memory itself.
LAUNCHER = """
import psutil, subprocess, sys, time

def peak(process):
    try:
        with open(f"/proc/{process.pid}/status") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)
    except (OSError, psutil.Error):
        return 0

running = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
root, highest = psutil.Process(running.pid), 0
while running.poll() is None:
    try:
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        tree = [root]
    highest = max(highest, *map(peak, tree))
    time.sleep(0.05)
print(running.returncode, highest)
"""


def measured(folder: Path, *arguments: str) -> Ended:
    with (folder / "err.txt").open("ab") as err:
        answer = subprocess.run(
            [sys.executable, "-c", LAUNCHER, sys.executable, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=err,
            check=True,
        )
    code, peak = map(int, answer.stdout.split())
    assert peak > 50 * 1024, "the measure itself does not work"
    return Ended(code, peak * 1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale")
    (path / "scale.yaml").write_text(yaml.safe_dump(CONFIG))
    return path


@pytest.fixture(scope="module")
def large_run(folder: Path) -> tuple[Ended, Path]:
    ended = measured(
        folder, *HARNESS, "run", "--config", "scale.yaml", "--out", "runs", "--set", f"workloads.0.requests={MANY}"
    )
    assert ended.code == 0, (folder / "err.txt").read_text()
    (run_dir,) = (folder / "runs").iterdir()
    return ended, run_dir


def cell_of(run_dir: Path) -> Path:
    (cell,) = (run_dir / "cells").iterdir()
    return cell


def test_a_run_keeps_every_request(large_run: tuple[Ended, Path]) -> None:
    ended, run_dir = large_run
    (cell,) = load_run(run_dir).cells
    assert cell.metrics["finished_requests"] == MANY
    assert sum(batch.num_rows for batch in iter_requests(cell_of(run_dir), ["request_id"])) == MANY
    assert ended.peak_bytes < MOST_RUN_BYTES, f"{ended.peak_bytes / 2**20:.0f} MiB"


def test_the_report_stays_small_and_is_built_in_bounded_memory(folder: Path, large_run: tuple[Ended, Path]) -> None:
    _, run_dir = large_run
    page = run_dir / "report.html"
    page.unlink()
    ended = measured(folder, *HARNESS, "report", str(run_dir))
    assert ended.code == 0
    assert page.stat().st_size < MOST_REPORT_BYTES
    assert ended.peak_bytes < MOST_RUN_BYTES, f"{ended.peak_bytes / 2**20:.0f} MiB"


def test_a_cells_memory_does_not_follow_its_requests(folder: Path, large_run: tuple[Ended, Path]) -> None:
    """The same cell alone in its process, and a fifth of it."""
    spec = (cell_of(large_run[1]) / "spec.json").read_text()
    peaks = {}
    for requests in (FEW, MANY):
        cell_dir = folder / f"cell-{requests}"
        cell_dir.mkdir()
        (cell_dir / "spec.json").write_text(spec.replace(f'"requests": {MANY}', f'"requests": {requests}'))
        ended = measured(folder, "-m", "harness.cell", str(cell_dir))
        assert ended.code == 0, (folder / "err.txt").read_text()
        peaks[requests] = ended.peak_bytes
        shutil.rmtree(cell_dir)
    assert max(peaks.values()) < MOST_CELL_BYTES, peaks
    assert peaks[MANY] - peaks[FEW] < MOST_GROWTH_BYTES_PER_REQUEST * (MANY - FEW), peaks


def test_a_simulated_cell_imports_neither_torch_nor_pandas() -> None:
    """They take seconds to import, and a quarter of the memory: a run of many small cells would consist of that."""
    program = (
        "import sys, harness.cell\n"
        "sys.exit(' '.join({'torch', 'pandas', 'scipy.stats', 'matplotlib'} & set(sys.modules)) or None)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
