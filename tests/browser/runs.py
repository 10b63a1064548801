"""The runs whose reports are opened: a whole one, simulated for the purpose, and synthetic ones with what is rare."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from reports.page import write_report
from results.schema import Status
from results.store import RunFolder
from tests.results.run_folders import Shape, build

RUN = ("-c", "from harness.cli import main; main()", "run", "--config", "t4_llama2", "--backend", "sim", "--quiet")
ENGINES = "engines=[gpu_only, apex]"
WORKLOADS = "workloads=[{kind: long_output, prompt: 500, output: 24, rate: [0.5, 2.0], requests: 8}]"


def simulated(out_dir: Path) -> Path:
    """A report with everything in it: two rates, modes and regret, operators, bands, traces, two repeats."""
    settings = [
        word for setting in (ENGINES, WORKLOADS, "measure.repeats=2", "measure.draws=2") for word in ("--set", setting)
    ]
    subprocess.run([sys.executable, *RUN, *settings, "--out", str(out_dir)], check=True, cwd=Path(__file__).parents[2])
    (run_dir,) = out_dir.iterdir()
    return run_dir / "report.html"


def troubled(out_dir: Path) -> Path:
    """Failed, refused and invalid cells, and an engine that took more than its share."""
    failed = {f"e2-w1-r{repeat}": Status.FAILED for repeat in range(3)}
    path = build(out_dir, Shape(bad={"e1-w0-r1": Status.INVALID, "e0-w0-r2": Status.REFUSED, **failed}))
    folder = RunFolder.open(path)
    for repeat in range(3):
        cell = folder.read_cell_summary(f"e1-w1-r{repeat}")
        folder.write_cell_summary(dataclasses.replace(cell, unfair=("accelerator memory: 9.2 GiB of 8 GiB",)))
    return write_report(path)
