"""What could not be said, and why, one line per reason: "p99 needs 368 observations; had 20–28: ..."."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from reports import names
from reports.values import listing, span
from results.query import Run

_PERCENTILE = re.compile(r"(?P<metric>.+)_(?P<percentile>p\d+)")
_TOO_FEW = re.compile(r"needs (?P<needed>\d+ (?:independent )?observations), has (?P<had>\d+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One reason: what is missing for it, and where."""

    reason: str
    columns: str
    where: str


@dataclass(frozen=True, slots=True)
class _Missing:
    column: str
    why: str
    place: str  # engine on workload


def lines(run: Run) -> list[Line]:
    few: dict[tuple[str, str], list[_Missing]] = {}
    other: dict[str, list[_Missing]] = {}
    for missing in _missing(run):
        percentile, too_few = _PERCENTILE.fullmatch(missing.column), _TOO_FEW.fullmatch(missing.why)
        if percentile and too_few:
            few.setdefault((percentile["percentile"], too_few["needed"]), []).append(missing)
        else:
            other.setdefault(missing.why, []).append(missing)
    found = [_too_few(run, percentile, needed, items) for (percentile, needed), items in sorted(few.items())]
    return found + [Line(why, _columns(items), _where(run, items)) for why, items in other.items()]


def _missing(run: Run) -> Iterator[_Missing]:
    for cell in run.cells:
        for column, why in cell.unavailable.items():
            yield _Missing(column, why, f"{cell.engine} on {cell.workload}")


def _too_few(run: Run, percentile: str, needed: str, items: list[_Missing]) -> Line:
    had = [int(found["had"]) for item in items if (found := _TOO_FEW.fullmatch(item.why))]
    metrics = (item.column.removesuffix(f"_{percentile}") for item in items)
    columns = ", ".join(dict.fromkeys(names.metric(metric) for metric in metrics))
    reason = f"{percentile} needs {needed}; had {span(str(min(had)), str(max(had)))}"
    return Line(reason, columns, _where(run, items))


def _columns(items: list[_Missing]) -> str:
    return ", ".join(dict.fromkeys(names.metric(item.column) for item in items))


def _where(run: Run, items: list[_Missing]) -> str:
    places = list(dict.fromkeys(item.place for item in items))
    if len(places) == len(run.groups()):
        return "" if len(places) == 1 else "everywhere"
    return listing(places) if len(places) <= 4 else f"{', '.join(places[:3])} and {len(places) - 3} more"
