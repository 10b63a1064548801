"""Runs an experiment: one fresh process per cell, every ending kept, then the summary, the verdicts and the report.

Not here: how a process is watched (child.py), what it does (cell.py), what the numbers mean (metrics.py, stats.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.checks import require_runnable
from harness.child import run_child
from harness.environment import git_state, machine_facts, versions
from harness.errors import ConfigError
from harness.experiment import Experiment
from harness.plan import CellSpec, expand, resolve_backend
from harness.progress import Watcher
from results.errors import ResultsError
from results.files import write_text
from results.schema import MANIFEST_FILE, SUMMARY_FILE, CellSummary, Label, Manifest, RunSummary, Status
from results.store import RunFolder

CELL_MODULE = "harness.cell"
PARTIAL_EXIT_CODE = 4
INTERRUPTED_EXIT_CODE = 130


@dataclass(frozen=True, slots=True)
class RunOutcome:
    run_dir: Path
    summary: RunSummary
    report: Path | None
    warnings: tuple[str, ...]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED_EXIT_CODE
        return 0 if all(cell.status is Status.OK for cell in self.summary.cells) else PARTIAL_EXIT_CODE


def run_experiment(
    experiment: Experiment,
    out_dir: Path,
    watcher: Watcher,
    *,
    resume: bool = False,
    command: str = "",
    module: str = CELL_MODULE,
) -> RunOutcome:
    """Run what is to be run. Nothing is written before every cell has been found runnable."""
    backend, label, why = resolve_backend(experiment)
    cells = expand(experiment, backend)
    require_runnable(cells, backend)
    folder = _find(experiment, out_dir, cells) if resume else _create(experiment, out_dir)
    if not resume:
        folder.write_manifest(_manifest(experiment, cells, backend, label, command))
    watcher.run_started(f"{experiment.name}: {len(cells)} cells on {backend} ({label}: {why})", len(cells))
    try:
        for cell in cells:
            _run_or_keep(folder, cell, watcher, module)
    except KeyboardInterrupt:
        return RunOutcome(folder.path, folder.write_run_summary(), None, (), interrupted=True)
    finally:
        watcher.close()
    return _conclude(folder)


def _create(experiment: Experiment, out_dir: Path) -> RunFolder:
    try:
        return RunFolder.create(out_dir, experiment.name)
    except OSError as error:
        raise ConfigError(f"--out {out_dir}: cannot be written: {error.strerror}") from None


def _find(experiment: Experiment, out_dir: Path, cells: Sequence[CellSpec]) -> RunFolder:
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


def _manifest(experiment: Experiment, cells: Sequence[CellSpec], backend: str, label: str, command: str) -> Manifest:
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
    )


def _run_or_keep(folder: RunFolder, cell: CellSpec, watcher: Watcher, module: str) -> None:
    """A complete cell is kept unless it failed: a failure may have been the machine's, so resuming tries it again."""
    if folder.is_complete(cell.cell_id):
        if _is_kept(folder, cell.cell_id):
            watcher.cell_skipped(cell)
            return
        (folder.cell_path(cell.cell_id) / SUMMARY_FILE).unlink()
    folder.clear_incomplete(cell.cell_id)
    cell_dir = folder.cell_dir(cell.cell_id)
    write_text(cell_dir / "spec.json", cell.to_json() + "\n")
    watcher.cell_started(cell)
    ending = run_child(cell_dir, cell.measure.time_limit_s, watcher.cell_progressed, module)
    summary = _summary(folder, cell, ending.reason or "the process ended without a summary")
    watcher.cell_ended(cell, summary, ending.wall_s)


def _is_kept(folder: RunFolder, cell_id: str) -> bool:
    try:
        return folder.read_cell_summary(cell_id).status is not Status.FAILED
    except ResultsError:  # a summary that cannot be read tells nothing
        return False


def _summary(folder: RunFolder, cell: CellSpec, reason: str) -> CellSummary:
    """What the cell wrote, or a failed summary in its place. A cell that wrote one has results, however it ended."""
    if folder.is_complete(cell.cell_id):
        try:
            return folder.read_cell_summary(cell.cell_id)
        except ResultsError as error:
            reason = str(error)
    summary = CellSummary(
        cell_id=cell.cell_id,
        engine=cell.engine.name,
        workload=cell.workload.name,
        backend=cell.backend,
        label=Label(cell.label),
        repeat=cell.repeat,
        status=Status.FAILED,
        error=reason,
    )
    folder.write_cell_summary(summary)
    return summary


def _conclude(folder: RunFolder) -> RunOutcome:
    """Summary, verdicts, report. A report that fails costs a warning, not the run."""
    summary = folder.write_run_summary()
    warnings: list[str] = []
    report: Path | None = None
    try:
        from harness.stats import verdicts

        summary = folder.write_run_summary(verdicts([cell.to_json() for cell in summary.cells]))
        from reports.page import write_report

        report = write_report(folder.path)
    except Exception as error:  # the numbers are safe on disk; whatever went wrong here can be repeated with `report`
        warnings.append(f"no report: {type(error).__name__}: {error}; try `harness report {folder.path}`")
    return RunOutcome(folder.path, summary, report, tuple(warnings), interrupted=False)
