"""Everything that did not work, with its reason: cells that failed or never finished, requests that were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.evidence import Evidence
from reports.legible import LONGEST_REASON, shortened
from reports.rendering import Section, render
from reports.values import count, listing
from results.query import Run
from results.schema import CellSummary, Status

MOST_LISTED = 100
MOST_PLACES = 3

_ORDER = (Status.FAILED, Status.REFUSED, Status.INVALID)
NO_REASON = "no reason was recorded"


@dataclass(frozen=True, slots=True)
class Problem:
    """One line of the list. `detail` is the rest of a long message, shown on demand."""

    status: str
    where: str
    repeats: str
    reason: str
    detail: str = ""


def build(run: Run, evidence: Evidence) -> Section | None:
    """None when all went well: then one line beneath the verdict says so."""
    found = [*_cells(run), *_unfinished(run), *_requests(evidence), *_tables(evidence)]
    if not found:
        return None
    body = render("problems.html", problems=found[:MOST_LISTED], more=max(0, len(found) - MOST_LISTED))
    return Section("problems", "What did not work", body)


def reason_of(cell: CellSummary) -> str:
    """One line: the error, else the notes; an invalid cell may have only notes to say why."""
    text = (cell.error or "; ".join(cell.notes)).strip()
    return shortened(text.splitlines()[-1].strip(), LONGEST_REASON) if text else NO_REASON


def _cells(run: Run) -> list[Problem]:
    """Repeats that ended alike share a line."""
    alike: dict[tuple[str, str, str], list[CellSummary]] = {}
    for status in _ORDER:
        for cell in run.with_status(status):
            key = str(status), f"{cell.engine} on {cell.workload}", reason_of(cell)
            alike.setdefault(key, []).append(cell)
    return [
        Problem(status, where, ", ".join(str(cell.repeat) for cell in cells), reason, _detail(cells[0].error or ""))
        for (status, where, reason), cells in alike.items()
    ]


def _detail(error: str) -> str:
    return error if len(error.strip().splitlines()) > 1 or len(error) > LONGEST_REASON else ""


def _unfinished(run: Run) -> list[Problem]:
    unreadable = [Problem("unreadable", cell_id, "", reason) for cell_id, reason in run.unreadable.items()]
    return [
        *unreadable,
        *_together("incomplete", run.incomplete, "begun, never finished"),
        *_together("missing", run.missing, "planned, not run yet"),
    ]


def _together(status: str, cell_ids: Sequence[str], reason: str) -> list[Problem]:
    """One line for all of them: an interrupted sweep lacks hundreds."""
    if not cell_ids:
        return []
    detail = "\n".join(cell_ids) if len(cell_ids) > 3 else ""
    where = count(len(cell_ids), "cell") if detail else listing(cell_ids)
    return [Problem(status, where, "", reason, detail)]


def _requests(evidence: Evidence) -> list[Problem]:
    """Where it is so many for the same reason in several places, they share a line."""
    places: dict[str, list[str]] = {}
    for (engine, workload), seen in evidence.latencies.items():
        for (status, reason), number in seen.unfinished.most_common(5):
            text = f"{number:,} of {count(seen.requests, 'request')} {status}: {reason or NO_REASON}"
            places.setdefault(text, []).append(f"{engine} on {workload}")
    return [Problem("requests", _places(found), "", text) for text, found in places.items()]


def _places(places: Sequence[str]) -> str:
    return listing(places) if len(places) <= MOST_PLACES else f"{places[0]} and {len(places) - 1} more"


def _tables(evidence: Evidence) -> list[Problem]:
    return [Problem("unreadable", "a table", "", reason) for reason in evidence.unreadable]
