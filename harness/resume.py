"""Which run `--resume` goes on with, and whether it is the same run: same cells, same machine, same packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.environment import machine_facts, versions
from harness.errors import ConfigError
from harness.experiment import Experiment
from harness.plan import CellSpec
from results.schema import MANIFEST_FILE, Label
from results.store import RunFolder


def find_run(experiment: Experiment, out_dir: Path, cells: Sequence[CellSpec]) -> RunFolder:
    """The run to go on with: out_dir itself, or the newest run of this experiment in it. It must be the same run."""
    stamped = re.compile(rf"{re.escape(experiment.name)}-\d{{8}}T\d{{6}}Z(-\d+)?")
    inside = sorted(out_dir.iterdir(), reverse=True) if out_dir.is_dir() else []
    candidates = [out_dir, *(path for path in inside if stamped.fullmatch(path.name))]
    folder = next((RunFolder.open(path) for path in candidates if (path / MANIFEST_FILE).is_file()), None)
    if folder is None:
        raise ConfigError(f"--resume: there is no run of {experiment.name} in {out_dir}")
    _require_same_run(folder, cells)
    return folder


def _require_same_run(folder: RunFolder, cells: Sequence[CellSpec]) -> None:
    """Half a run from one machine or one torch and half from another would look like one run, and be none."""
    manifest = folder.manifest
    if set(manifest.cells_planned) != {cell.cell_id for cell in cells}:
        raise ConfigError(f"--resume: {folder.path} was planned from another configuration; start a new run")
    if manifest.machine.get("cpu") != machine_facts()["cpu"] and manifest.label is not Label.SIMULATED:
        raise ConfigError(f"--resume: {folder.path} was begun on another machine; start a new run")
    if manifest.versions != versions():
        raise ConfigError(f"--resume: {folder.path} was begun with other versions of packages; start a new run")
