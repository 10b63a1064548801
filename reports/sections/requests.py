"""Single requests: those that did not finish and the slowest, which percentiles hide. All lie in the parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from reports import labels
from reports.evidence import Evidence
from reports.notable import notable_requests
from reports.rendering import Section, render
from reports.values import ABSENT, quantity
from results.errors import ResultsError
from results.query import Run
from results.schema import CellSummary, Status

ROWS = 200

COLUMNS = (
    "Engine",
    "Workload",
    "Repeat",
    "Request",
    "Prompt tokens",
    "Output tokens",
    "Queue (ms)",
    "TTFT (ms)",
    "TPOT (ms)",
    "E2E (ms)",
    "Preemptions",
    "Tier",
    "Status",
)
TEXT_COLUMNS = frozenset({0, 1, 11, 12})

_READ = (
    "request_id",
    "arrival_s",
    "first_scheduled_s",
    "first_token_s",
    "last_token_s",
    "prompt_tokens",
    "output_tokens",
    "preemptions",
    "tier",
    "status",
    "reason",
    "warmup",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One table cell: as shown, as sorted (a number where there is one), and as a tooltip."""

    text: str
    value: str = ""
    raw: str = ""


def build(run: Run, evidence: Evidence) -> Section:
    cells = run.with_status(Status.OK)
    each = max(1, ROWS // len(cells)) if cells else 0
    rows = list(islice((row for cell in cells for row in _rows(run, cell, each)), ROWS))
    body = render(
        "requests.html",
        label=labels.of(cells),
        columns=COLUMNS,
        text_columns=TEXT_COLUMNS,
        rows=rows,
        total=sum(seen.requests for seen in evidence.latencies.values()),
        each=each,
        several=len(cells) > 1,
    )
    return Section("requests", "Requests", body)


def _rows(run: Run, cell: CellSummary, each: int) -> list[tuple[str, list[Entry]]]:
    try:
        return [(cell.cell_id, _row(cell, request)) for request in notable_requests(run.cell_dir(cell), _READ, each)]
    except ResultsError:
        return []  # reported among what did not work


def _row(cell: CellSummary, request: Mapping[str, object]) -> list[Entry]:
    at = {key: value for key, value in request.items() if key.endswith("_s") and isinstance(value, float)}
    tokens = request["output_tokens"]
    several = tokens - 1 if isinstance(tokens, int) and tokens > 1 else None
    reason = str(request["reason"] or "")
    status = "warm-up" if request["warmup"] and request["status"] == "finished" else str(request["status"])
    return [
        Entry(cell.engine),
        Entry(cell.workload),
        _whole(cell.repeat),
        _whole(request["request_id"]),
        _whole(request["prompt_tokens"]),
        _whole(tokens),
        _time(at, "arrival_s", "first_scheduled_s"),
        _time(at, "arrival_s", "first_token_s"),
        _time(at, "first_token_s", "last_token_s", several) if several else Entry(ABSENT),
        _time(at, "arrival_s", "last_token_s"),
        _whole(request["preemptions"]),
        Entry(quantity("tier", request["tier"])),
        Entry(status, raw=reason),
    ]


def _whole(value: object) -> Entry:
    return Entry(f"{value:,}" if isinstance(value, int) else str(value), str(value))


def _time(at: Mapping[str, float], start: str, end: str, parts: int = 1) -> Entry:
    if start not in at or end not in at:
        return Entry(ABSENT)
    value = (at[end] - at[start]) / parts
    return Entry(f"{value * 1e3:,.1f}", f"{value:.9g}", f"{value:.6g} s")
