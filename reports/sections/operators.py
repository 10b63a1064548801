"""What each operator took and what it read or carried, over the whole run: a bar per engine, and every operator in a
table. Only engines whose ops are seen have any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from reports import charts, labels
from reports.drawing import SERIES, Alt
from reports.rendering import Section, render
from reports.sections.panels import MOST_WORKLOADS, left_out
from reports.values import ABSENT, byte_count, count, listing, percent, seconds
from results.query import Group, Run

SORTS = ("matrices, GPU", "matrices, host", "attention, GPU", "attention, host", "weights", "rows", "KV", "other")
SIDES = {"GPU": "GPU", "CPU": "host"}
UNITS = {"GPU": "GPU", "CPU": "CPU", "H2D": "to GPU", "D2H": "from GPU", "DISK": "disk"}
MATRICES = frozenset({"qkv", "output", "up", "down", "head"})


@dataclass(frozen=True, slots=True)
class Operator:
    """Medians of the repeats."""

    name: str
    unit: str
    ops: float
    seconds: float
    bytes: float

    @property
    def sort(self) -> int:
        """Its place in SORTS, which is its colour."""
        words, side = self.name.split(" "), SIDES.get(self.unit, "")
        said = f"matrices, {side}" if set(self.name.split("+")) <= MATRICES else f"{self.name}, {side}"
        if said in SORTS:
            return SORTS.index(said)
        return SORTS.index(words[0]) if words[0] in SORTS else len(SORTS) - 1


@dataclass(frozen=True, slots=True)
class Row:
    key: str  # operator and unit as the records have them
    operator: str
    unit: str
    ops: str
    time: str
    share: str
    bytes: str
    rate: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One engine."""

    engine: str
    slot: int
    about: str
    drawing: Markup
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    workload: str
    label: str
    sorts: tuple[tuple[int, str], ...]
    panels: tuple[Panel, ...]


def build(run: Run) -> Section | None:
    """None where no engine's ops were seen."""
    drawn = [_figure(run, index, workload) for index, workload in enumerate(run.workloads[:MOST_WORKLOADS])]
    figures = [figure for figure in drawn if figure]
    if not figures:
        return None
    return Section("operators", "Operators", render("operators.html", figures=figures, left_out=left_out(run)))


def _figure(run: Run, index: int, workload: str) -> Figure | None:
    groups = [group for group in run.groups(workload) if any(cell.operators for cell in group.ok)]
    if not groups:
        return None
    label = labels.of(cell for group in groups for cell in group.ok)
    found = {group.engine: _operators(group) for group in groups}
    most = max(map(_seconds, found.values())), max(map(_bytes, found.values()))
    sorts = sorted({operator.sort for operators in found.values() for operator in operators})
    panels = [_panel(run, group, found[group.engine], most, f"ops{index}", label) for group in groups]
    return Figure(workload, label, tuple((sort, SORTS[sort]) for sort in sorts), tuple(panels))


def _operators(group: Group) -> list[Operator]:
    """By colour, so that pieces of one colour are neighbours; the longest of each first."""
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for cell in group.ok:
        for row in cell.operators:
            rows.setdefault((row.operator, row.unit), []).append((row.ops, row.seconds, row.bytes))
    found = [Operator(*key, *(median(values) for values in zip(*told, strict=True))) for key, told in rows.items()]
    return sorted(found, key=lambda operator: (operator.sort, -operator.seconds, operator.name, operator.unit))


def _panel(
    run: Run, group: Group, operators: Sequence[Operator], most: tuple[float, float], key: str, label: str
) -> Panel:
    slot = run.engines.index(group.engine)
    time_s, size = _seconds(operators), _bytes(operators)
    about = f"{seconds(time_s)} of work, {byte_count(size)}; {count(len(group.ok), 'repeat')}"
    longest = sorted(operators, key=lambda operator: -operator.seconds)[:3]
    said = listing(f"{each.name} ({_unit(each.unit)}) {seconds(each.seconds)}" for each in longest)
    alt = Alt(f"{key}e{slot}", f"{group.engine} on {group.workload}, {label}: {about}. Longest: {said}.")
    bars = [
        charts.Stack("time", _pieces({each: each.seconds for each in operators}, most[0])),
        charts.Stack("bytes", _pieces({each: each.bytes for each in operators}, most[1])),
    ]
    rows = tuple(_row(each, time_s) for each in sorted(operators, key=lambda operator: -operator.seconds))
    return Panel(group.engine, slot % SERIES, about, charts.stacked_bars(bars, alt), rows)


def _pieces(values: Mapping[Operator, float], most: float) -> tuple[tuple[int, float], ...]:
    return tuple((operator.sort, 100 * value / most) for operator, value in values.items() if value > 0)


def _row(operator: Operator, whole_s: float) -> Row:
    timed = operator.seconds > 0
    return Row(
        f"{operator.name}/{operator.unit}",
        operator.name,
        _unit(operator.unit),
        f"{operator.ops:,.0f}",
        seconds(operator.seconds),
        percent(operator.seconds / whole_s, 1) if whole_s > 0 else ABSENT,
        byte_count(operator.bytes),
        f"{byte_count(operator.bytes / operator.seconds)}/s" if timed and operator.bytes else ABSENT,
    )


def _unit(unit: str) -> str:
    return UNITS.get(unit, unit)


def _seconds(operators: Iterable[Operator]) -> float:
    return sum(operator.seconds for operator in operators)


def _bytes(operators: Iterable[Operator]) -> float:
    return sum(operator.bytes for operator in operators)
