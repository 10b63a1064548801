"""Runs an experiment: one fresh process per cell, every ending kept, then the summary, the verdicts and the report.

Not here: what stands in its folder when it begins (opening.py), how a process is watched (child.py), what it does
(cell.py), what the numbers mean (metrics.py, stats.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.checks import require_runnable
from harness.child import Ending, run_child
from harness.epitaph import is_disk_full
from harness.experiment import Experiment
from harness.interrupts import Interrupts, ignore_further
from harness.opening import created, doubts, manifest_of, reopened
from harness.plan import CellSpec, expand, left_out, resolve_backend
from harness.progress import Watcher
from results.errors import ResultsError
from results.files import write_text
from results.schema import SUMMARY_FILE, CellSummary, Label, RunSummary, Status
from results.store import RunFolder

CELL_MODULE = "harness.cell"
SPEC_FILE = "spec.json"
ERROR_FILE = "error.txt"
PARTIAL_EXIT_CODE = 4
INTERRUPTED_EXIT_CODE = 130


@dataclass(frozen=True, slots=True)
class RunOutcome:
    run_dir: Path
    summary: RunSummary
    report: Path | None
    warnings: tuple[str, ...]
    interrupted: bool
    stopped: bool = False  # the run folder took no more; the rest was not tried
    cost_model_error: str = ""  # as in the manifest

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED_EXIT_CODE
        is_whole = not self.stopped and all(cell.status is Status.OK for cell in self.summary.cells)
        return 0 if is_whole else PARTIAL_EXIT_CODE


class _FolderFullError(Exception):
    """Nothing more can be written into the run folder: going on would cost hours and keep nothing."""


def run_experiment(
    experiment: Experiment,
    out_dir: Path,
    watcher: Watcher,
    *,
    resume: bool = False,
    command: str = "",
    module: str = CELL_MODULE,
    only: Collection[tuple[str, str]] = (),
) -> RunOutcome:
    """Run what is to be run. Nothing is written before every cell has been found runnable.

    `only`: engine and workload, where not all are wanted; each cell is the one that the whole experiment has.
    """
    backend, label, why = resolve_backend(experiment)
    cells = expand(experiment, backend)
    if only:
        cells = [cell for cell in cells if (cell.engine.name, cell.workload.name) in only]
    require_runnable(cells, backend)
    manifest = manifest_of(experiment, cells, backend, label, command)
    with Interrupts() as interrupts, ExitStack() as held:
        folder = reopened(experiment, out_dir, cells) if resume else created(out_dir, manifest, cells)
        held.enter_context(folder.claimed())
        warnings = doubts(manifest if resume else folder.manifest, backend)
        if absent := left_out(experiment, backend):
            warnings.append(
                f"left out on {backend}, because their weights are packed in simulation only: {', '.join(absent)}"
            )
        try:
            watcher.run_started(f"{experiment.name}: {len(cells)} cells on {backend} ({label}: {why})", len(cells))
            full = _run_cells(folder, cells, watcher, module, interrupts)
            summary, problem = _written_summary(folder)
            watcher.run_ended(summary)
        finally:
            watcher.close()
        warnings += [*filter(None, (full, problem))]
        interrupted = bool(interrupts.count)
    if interrupted or full or problem:
        stopped = not interrupted
        outcome = RunOutcome(folder.path, summary, None, tuple(warnings), interrupted=interrupted, stopped=stopped)
    else:
        outcome = _concluded(folder, summary, warnings)
    return replace(outcome, cost_model_error=manifest.cost_model_error)


# --- the cells --------------------------------------------------------------------------------------------------------


def _run_cells(
    folder: RunFolder, cells: Sequence[CellSpec], watcher: Watcher, module: str, interrupts: Interrupts
) -> str | None:
    """One after the other until all are run or the user has enough; why not, where the folder takes no more."""
    try:
        for cell in cells:
            if interrupts.count:
                return None
            if _is_kept(folder, cell.cell_id):
                watcher.cell_skipped(cell)
            else:
                _run(folder, cell, watcher, module, interrupts)
    except (_FolderFullError, ResultsError, OSError) as error:
        return f"stopped: {error}; put that right, then the same command with --resume goes on"
    return None


def _is_kept(folder: RunFolder, cell_id: str) -> bool:
    """A complete cell is kept unless it failed: a failure may have been the machine's, so resuming tries it again."""
    if not folder.is_complete(cell_id):
        return False
    try:
        return folder.read_cell_summary(cell_id).status is not Status.FAILED
    except ResultsError:  # a summary that cannot be read tells nothing
        return False


def _run(folder: RunFolder, cell: CellSpec, watcher: Watcher, module: str, interrupts: Interrupts) -> None:
    (folder.cell_path(cell.cell_id) / SUMMARY_FILE).unlink(missing_ok=True)
    cell_dir = _begun(folder, cell)
    watcher.cell_started(cell)
    ending = run_child(cell_dir, cell.measure.time_limit_s, watcher.cell_progressed, interrupts, module)
    folder.remove_temporaries(cell.cell_id)
    if ending.interrupted and not folder.is_complete(cell.cell_id):
        return  # neither a result nor a failure: as if it had not begun
    is_full = is_disk_full(ending.reason or "") and not folder.is_complete(cell.cell_id)
    if is_full:
        _begun(folder, cell)  # what there was room for is half a record; the reason needs the room
    summary = _kept_summary(folder, cell, ending)
    watcher.cell_ended(cell, summary, ending.wall_s)
    if is_full:
        raise _FolderFullError(ending.reason)


def _begun(folder: RunFolder, cell: CellSpec) -> Path:
    folder.clear_incomplete(cell.cell_id)
    cell_dir = folder.cell_dir(cell.cell_id)
    write_text(cell_dir / SPEC_FILE, cell.to_json() + "\n")
    return cell_dir


def _kept_summary(folder: RunFolder, cell: CellSpec, ending: Ending) -> CellSummary:
    """What the cell wrote, or a failed summary in its place. A cell that wrote one has results, however it ended."""
    reason = ending.reason or "the process ended without a summary"
    if ending.reason is not None:
        write_text(folder.cell_path(cell.cell_id) / ERROR_FILE, f"{reason}\n\n{ending.last_words}")
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


# --- the end ----------------------------------------------------------------------------------------------------------


def _written_summary(folder: RunFolder) -> tuple[RunSummary, str | None]:
    """The cells as they are on disk; a problem where their summary cannot be added to them."""
    try:
        return folder.write_run_summary(), None
    except ResultsError as error:
        return folder.gather(), f"{error}; the cells' own summaries are kept"


def _concluded(folder: RunFolder, summary: RunSummary, warnings: list[str]) -> RunOutcome:
    """Verdicts and report. What goes wrong with them costs a warning, not the run: the numbers are safe on disk."""
    report: Path | None = None
    again = f"try `harness report {folder.path}`"
    try:
        from harness.verdicts import verdicts

        summary = folder.write_run_summary(verdicts([cell.to_json() for cell in summary.cells]))
        from reports.page import write_report

        report = write_report(folder.path)
    except KeyboardInterrupt:
        ignore_further()
        warnings.append(f"no report: interrupted; {again}")
        return RunOutcome(folder.path, summary, None, tuple(warnings), interrupted=True)
    except Exception as error:
        warnings.append(f"no report: {type(error).__name__}: {error}; {again}")
    return RunOutcome(folder.path, summary, report, tuple(warnings), interrupted=False)
