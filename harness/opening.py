"""A run's folder when a run begins: a new one with its manifest, or the one that --resume goes on with.

The manifest says what was asked for and on what: the configuration, the machine, and the instrument's own error.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.calibrate import calibrate_run
from harness.cost_accuracy import cost_model_error
from harness.environment import git_state, machine_facts, versions
from harness.errors import ConfigError
from harness.experiment import Experiment
from harness.plan import CellSpec
from results.errors import ResultsError
from results.files import writing
from results.schema import MANIFEST_FILE, Label, Manifest
from results.store import RunFolder

CALIBRATION = "driver_calibration"


def manifest_of(experiment: Experiment, cells: Sequence[CellSpec], backend: str, label: str, command: str) -> Manifest:
    commit, dirty = git_state()
    return Manifest(
        name=experiment.name,
        label=Label(label),
        backend=backend,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        config=experiment.model_dump(mode="json"),
        machine=machine_facts(),
        versions=versions(),
        git_commit=commit,
        git_dirty=dirty,
        seeds={cell.cell_id: cell.measure.seed for cell in cells},
        cells_planned=tuple(cell.cell_id for cell in cells),
        cost_model_error=_cost_model_error(experiment, backend),
    )


def _cost_model_error(experiment: Experiment, backend: str) -> str:
    """Of whatever is costed with an entry of the catalogue: simulated, or paced to it."""
    if backend == "cuda" or not experiment.models_a_machine or experiment.hardware is None:
        return ""
    return cost_model_error(experiment.hardware)


def created(out_dir: Path, manifest: Manifest, cells: Sequence[CellSpec]) -> RunFolder:
    """With the instrument's own error in its manifest: measured once, at the run's load, when the run begins."""
    folder: RunFolder | None = None
    try:
        with writing(out_dir):
            folder = RunFolder.create(out_dir, manifest.name)
        machine = {**manifest.machine, CALIBRATION: calibrate_run(cells)}
        folder.write_manifest(replace(manifest, machine=machine))
    except BaseException as error:
        if folder is not None:  # a folder without a manifest is no run
            shutil.rmtree(folder.path, ignore_errors=True)
        if isinstance(error, ResultsError):
            raise ConfigError(f"--out: {error}") from None
        raise
    return folder


def reopened(experiment: Experiment, out_dir: Path, cells: Sequence[CellSpec]) -> RunFolder:
    """The run to go on with: out_dir itself, or the newest run of this experiment in it.

    It must be the same run, and writable, before anything is taken away from it.
    """
    stamped = re.compile(rf"{re.escape(experiment.name)}-\d{{8}}T\d{{6}}Z(-\d+)?")
    inside = sorted(out_dir.iterdir(), reverse=True) if out_dir.is_dir() else []
    candidates = [out_dir, *(path for path in inside if stamped.fullmatch(path.name))]
    folder = next((RunFolder.open(path) for path in candidates if (path / MANIFEST_FILE).is_file()), None)
    if folder is None:
        raise ConfigError(f"--resume: there is no run of {experiment.name} in {out_dir}")
    _require_same_run(folder, cells)
    try:
        folder.require_writable()
    except ResultsError as error:
        raise ConfigError(f"--resume: {error}") from None
    return folder


def doubts(manifest: Manifest, backend: str) -> list[str]:
    """What makes the wall clock of this machine doubtful. On a virtual clock nobody else's work counts."""
    if backend == "sim":
        return []
    found = []
    if "load_warning" in manifest.machine:
        found.append(str(manifest.machine["load_warning"]))
    calibration = manifest.machine.get(CALIBRATION)
    if isinstance(calibration, Mapping) and calibration.get("valid") is False:
        found.append(str(calibration["note"]))
    return found


def _require_same_run(folder: RunFolder, cells: Sequence[CellSpec]) -> None:
    """Half a run from one machine or one torch and half from another would look like one run, and be none."""
    manifest = folder.manifest
    if set(manifest.cells_planned) != {cell.cell_id for cell in cells}:
        raise ConfigError(f"--resume: {folder.path} was planned from another configuration; start a new run")
    if manifest.machine.get("cpu") != machine_facts()["cpu"] and manifest.label is not Label.SIMULATED:
        raise ConfigError(f"--resume: {folder.path} was begun on another machine; start a new run")
    if manifest.versions != versions():
        raise ConfigError(f"--resume: {folder.path} was begun with other versions of packages; start a new run")
