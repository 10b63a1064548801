"""What was asked of the engines: one row per workload, as it was drawn and clipped to what all can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from reports import labels
from reports.rendering import render
from reports.values import ABSENT, figure, listing, span
from results.query import Run
from results.schema import CellSummary

STATISTICS = ("mean", "p50", "p90", "p99")

Drawn = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Number:
    """The median over the repeats (each draws anew) and, where they differ, the lowest and the highest."""

    text: str
    span: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One workload."""

    name: str
    requests: Number
    prompt: tuple[Number, ...]
    output: tuple[Number, ...]
    rate: Number
    variation: Number
    clipped: Number
    tokens_cut: Number


def build(run: Run) -> Markup:
    """Empty when no cell tells what its workload came to."""
    rows = [row for workload in run.workloads if (row := _row(run, workload))]
    if not rows:
        return Markup("")
    different = [workload for workload in run.workloads if not _alike(_cells(run, workload))]
    return render(
        "workloads.html",
        rows=rows,
        statistics=STATISTICS,
        label=labels.of(run.cells),
        limit=_limit(run) if any(row.clipped.text not in ("0", ABSENT) or row.clipped.span for row in rows) else "",
        different=listing(different),
    )


def _cells(run: Run, workload: str) -> list[CellSummary]:
    return [cell for cell in run.cells if cell.workload == workload and _part(cell, "workload")]


def _part(cell: CellSummary, key: str) -> Drawn:
    part = cell.resolved.get(key)
    return part if isinstance(part, Mapping) else {}


def _alike(cells: Sequence[CellSummary]) -> bool:
    """Whether every engine got the same requests in a repeat, as far as their statistics tell.

    Where the rate is searched for, each engine ends at one of its own.
    """
    first: dict[int, tuple[Drawn, Drawn]] = {}
    same_rate = (cell for cell in cells if "saturation" not in cell.resolved)
    seen = ((cell.repeat, (_part(cell, "workload"), _part(cell, "clipped"))) for cell in same_rate)
    return all(first.setdefault(repeat, drawn) == drawn for repeat, drawn in seen)


def _limit(run: Run) -> str:
    limits = {limit for cell in run.cells if isinstance(limit := _part(cell, "clipped").get("limit_tokens"), int)}
    return span(f"{min(limits):,}", f"{max(limits):,}") if limits else ""


def _row(run: Run, workload: str) -> Row | None:
    repeats = {cell.repeat: cell for cell in reversed(_cells(run, workload))}
    if not repeats:
        return None
    drawn = [_part(cell, "workload") for cell in repeats.values()]
    clipped = [_part(cell, "clipped") for cell in repeats.values()]
    cut = [{"tokens": _sum(part, "prompt_tokens_cut", "output_tokens_cut")} for part in clipped]
    return Row(
        workload,
        _number(drawn, "requests"),
        tuple(_number(drawn, f"prompt_tokens_{name}") for name in STATISTICS),
        tuple(_number(drawn, f"output_tokens_{name}") for name in STATISTICS),
        _number(drawn, "requests_per_s"),
        _number(drawn, "arrival_cv"),
        _number(clipped, "clipped_requests"),
        _number(cut, "tokens"),
    )


def _sum(part: Drawn, *keys: str) -> float | None:
    found = [value for key in keys if isinstance(value := part.get(key), int | float)]
    return sum(found) if found else None


def _number(parts: Sequence[Drawn], key: str) -> Number:
    values = [float(value) for part in parts if isinstance(value := part.get(key), int | float)]
    if not values:
        return Number(ABSENT)
    low, high = _write(min(values)), _write(max(values))
    return Number(_write(median(values)), "" if low == high else span(low, high))


def _write(value: float) -> str:
    """Lengths and counts in whole numbers; rates and variations to three digits."""
    return figure(round(value) if value >= 100 else value)
