"""The notes that cells left, each once: those that differ in their numbers only share a line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from reports.rendering import render
from reports.values import listing
from results.query import Run
from results.schema import CellSummary

MOST_OPEN = 4

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Note:
    """The first of notes alike, how many more there are, and where."""

    text: str
    more: int
    places: tuple[str, ...]


def build(run: Run) -> Markup:
    """Empty when there is nothing to note; folded when it is much. Clipping first: it concerns every engine alike."""
    found = alike((cell, note) for cell in run.cells for note in cell.notes if not _shown_elsewhere(note, cell))
    found.sort(key=lambda note: "clip" not in note.text.lower())
    listed = [(note, _places(run, note.places)) for note in found]
    return render("notes.html", notes=listed, folded=len(found) > MOST_OPEN) if found else Markup("")


def alike(notes: Iterable[tuple[CellSummary, str]]) -> list[Note]:
    """Notes that are the same but for their numbers as one."""
    texts: dict[str, dict[str, None]] = {}
    places: dict[str, dict[str, None]] = {}
    for cell, note in notes:
        kind = _NUMBER.sub("#", note)
        texts.setdefault(kind, {})[note] = None
        places.setdefault(kind, {})[f"{cell.engine} on {cell.workload}"] = None
    return [Note(next(iter(found)), len(found) - 1, tuple(places[kind])) for kind, found in texts.items()]


def _shown_elsewhere(note: str, cell: CellSummary) -> bool:
    """The window stands beside the figures, clipping in the table of workloads."""
    in_table = note.startswith("window_kind:") and "window_s" in cell.metrics
    return in_table or ("were clipped" in note and bool(cell.resolved.get("clipped")))


def _places(run: Run, places: tuple[str, ...]) -> str:
    if len(places) > 1 and len(places) == len(run.groups()):
        return "everywhere"
    return listing(places) if len(places) <= 4 else f"{', '.join(places[:3])} and {len(places) - 3} more"
