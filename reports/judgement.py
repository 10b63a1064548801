"""Which cells may show figures: one that gave wrong tokens shows none, one that took more than its share is marked.

The judging itself is done where the run is made; here its outcome is read and applied to every part of the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from results.query import Run
from results.schema import CellSummary, Status


def unfair(cells: Iterable[CellSummary]) -> tuple[str, ...]:
    """What these cells took beyond their envelope, each difference once."""
    return tuple(dict.fromkeys(text for cell in cells for text in cell.unfair))


def broke_parity(cell: CellSummary) -> bool:
    return cell.parity is not None and cell.parity.held is False


def judged(run: Run) -> Run:
    """The run without the figures of engines whose tokens were wrong: on that workload no repeat of theirs counts."""
    broken = {(cell.engine, cell.workload) for cell in run.cells if broke_parity(cell)}
    if not broken:
        return run
    cells = (_invalid(cell) if (cell.engine, cell.workload) in broken else cell for cell in run.cells)
    return replace(run, cells=tuple(cells))


def _invalid(cell: CellSummary) -> CellSummary:
    if cell.status is not Status.OK:
        return cell
    if not broke_parity(cell) or cell.parity is None:
        return replace(cell, status=Status.INVALID, error="its tokens were not the reference's in another repeat")
    note = f": {cell.parity.note}" if cell.parity.note else ""
    return replace(cell, status=Status.INVALID, error=f"its tokens are not the reference's{note}")
