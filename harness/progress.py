"""What a person sees while cells run: bars with a time to the end on a terminal, plain lines when piped, or nothing."""

from __future__ import annotations

from statistics import median
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.child import Progress as CellProgress
from harness.plan import CellSpec
from results.schema import CellSummary, RunSummary, Status

MOST_WATCHING = 0.01  # of a core; more, and the instrument is part of what it measures
LONG_ENOUGH_S = 1.0  # a shorter cell holds too few samples for a share of its time


class Watcher(Protocol):
    """Told by the runner what happens, in this order; close() comes last, whatever happened.

    A run that cannot be ended in order has no run_ended().
    """

    def run_started(self, headline: str, cells: int) -> None: ...
    def cell_skipped(self, cell: CellSpec) -> None: ...
    def cell_started(self, cell: CellSpec) -> None: ...
    def cell_progressed(self, progress: CellProgress) -> None: ...
    def cell_ended(self, cell: CellSpec, summary: CellSummary, wall_s: float) -> None: ...
    def run_ended(self, summary: RunSummary) -> None: ...
    def close(self) -> None: ...


def watcher_for(console: Console, quiet: bool) -> Watcher:
    if quiet:
        return Silence()
    return Bars(console) if console.is_terminal else Lines(console)


class Silence:
    def run_started(self, headline: str, cells: int) -> None: ...
    def cell_skipped(self, cell: CellSpec) -> None: ...
    def cell_started(self, cell: CellSpec) -> None: ...
    def cell_progressed(self, progress: CellProgress) -> None: ...
    def cell_ended(self, cell: CellSpec, summary: CellSummary, wall_s: float) -> None: ...
    def run_ended(self, summary: RunSummary) -> None: ...
    def close(self) -> None: ...


class Lines(Silence):
    """One line per cell, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._cells = 0

    def run_started(self, headline: str, cells: int) -> None:
        self._cells = cells
        self._line(headline)

    def cell_skipped(self, cell: CellSpec) -> None:
        self._print(cell, "kept from before")

    def cell_ended(self, cell: CellSpec, summary: CellSummary, wall_s: float) -> None:
        self._print(cell, _outcome(summary, wall_s))

    def run_ended(self, summary: RunSummary) -> None:
        costs = costs_of_watching(summary)
        if costs:
            too_much = f", more than the {MOST_WATCHING:.0%} that it may" if max(costs) > MOST_WATCHING else ""
            self._line(f"watching the machine took {median(costs):.2%} of a core, at most {max(costs):.2%}{too_much}")

    def _print(self, cell: CellSpec, outcome: str) -> None:
        self._line(f"[{cell.order + 1}/{self._cells}] {_title(cell)}: {outcome}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """Two bars, cells and the requests of the current one; what has ended scrolls away above them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._all = self._progress.add_task("cells")
        self._cell = self._progress.add_task("requests", total=None)

    def run_started(self, headline: str, cells: int) -> None:
        super().run_started(headline, cells)
        self._progress.update(self._all, total=cells)
        self._progress.start()

    def cell_skipped(self, cell: CellSpec) -> None:
        super().cell_skipped(cell)
        self._progress.advance(self._all)

    def cell_started(self, cell: CellSpec) -> None:
        self._progress.reset(self._cell, description=_title(cell), total=None)

    def cell_progressed(self, progress: CellProgress) -> None:
        self._progress.update(self._cell, completed=progress.done, total=progress.total)

    def cell_ended(self, cell: CellSpec, summary: CellSummary, wall_s: float) -> None:
        super().cell_ended(cell, summary, wall_s)
        self._progress.advance(self._all)

    def close(self) -> None:
        self._progress.stop()


def costs_of_watching(summary: RunSummary) -> list[float]:
    """CPU time of the samplers over wall time, of every cell that was watched for long enough."""
    cost, wall = "sampler_cost_share", "cell_wall_s"
    return [
        cell.metrics[cost]
        for cell in summary.cells
        if cost in cell.metrics and cell.metrics.get(wall, 0.0) > LONG_ENOUGH_S
    ]


def _title(cell: CellSpec) -> str:
    return f"{cell.engine.name} on {cell.workload.name}, repeat {cell.repeat}"


def _outcome(summary: CellSummary, wall_s: float) -> str:
    rate = summary.metrics.get("output_tokens_per_s")
    if summary.status is Status.OK:
        figure = f", {rate:.1f} output tokens/s {summary.label}" if rate is not None else ""
        unfair = f", unfair: {'; '.join(summary.unfair)}" if summary.unfair else ""
        return f"ok in {wall_s:.1f} s{figure}{unfair}"
    reason = summary.error or "; ".join(summary.notes) or "no reason given"
    return f"{summary.status} after {wall_s:.1f} s: {reason.splitlines()[0]}"
