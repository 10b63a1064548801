"""The result table: engines by workload, median over repeats and the range they span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from reports import labels
from reports.rendering import Section, render
from reports.sections.problems import reason_of
from reports.values import Scale, count, plain_scale, quantity, time_scale
from results.query import Group, Run, Spread


class Kind(Enum):
    """Decides the unit that a column is written in."""

    PLAIN = "plain"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of the summary, as the table shows it."""

    title: str
    metric: str
    kind: Kind


COLUMNS = (
    Column("Output tokens/s", "output_tokens_per_s", Kind.PLAIN),
    Column("Requests/s", "requests_per_s", Kind.PLAIN),
    Column("TTFT p50", "ttft_s_p50", Kind.TIME),
    Column("TTFT p99", "ttft_s_p99", Kind.TIME),
    Column("TPOT p50", "tpot_s_p50", Kind.TIME),
    Column("TPOT p99", "tpot_s_p99", Kind.TIME),
    Column("E2E p50", "e2e_s_p50", Kind.TIME),
    Column("Preemptions", "preemptions", Kind.PLAIN),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the table. `strip` places low, median and high on a line from zero to the column's largest value."""

    median: str
    span: str
    raw: str
    strip: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One engine. Without a successful repeat it has a status and a reason, and no figures."""

    engine: str
    slot: int
    repeats: str
    figures: tuple[Figure | None, ...]
    why_absent: tuple[str, ...]
    status: str = ""
    reason: str = ""


def build(run: Run) -> Section:
    tables = [_table(run, workload) for workload in run.workloads]
    return Section("results", "Results", render("figures.html", tables=tables))


def _table(run: Run, workload: str) -> dict[str, object]:
    groups = run.groups(workload)
    scales = [_scale(column, groups) for column in COLUMNS]
    return {
        "workload": workload,
        "label": labels.of(cell for group in groups for cell in group.cells),
        "columns": [(column.title, scale.unit) for column, scale in zip(COLUMNS, scales, strict=True)],
        "rows": [_row(run, group, groups, scales) for group in groups],
        "engines": [group.engine for group in groups],
        "every_metric": _every_metric(groups),
    }


def _scale(column: Column, groups: Sequence[Group]) -> Scale:
    medians = [spread.median for group in groups if (spread := group.spread(column.metric))]
    return time_scale(medians) if column.kind is Kind.TIME else plain_scale(medians)


def _row(run: Run, group: Group, groups: Sequence[Group], scales: Sequence[Scale]) -> Row:
    slot = run.engines.index(group.engine)
    repeats = str(len(group.ok)) if len(group.ok) == len(group.cells) else f"{len(group.ok)} of {len(group.cells)}"
    if not group.ok:
        worst = group.cells[0]
        return Row(group.engine, slot, repeats, (), (), str(worst.status), reason_of(worst))
    figures = tuple(
        _figure(group.spread(column.metric), scale, _largest(column.metric, groups))
        for column, scale in zip(COLUMNS, scales, strict=True)
    )
    absent = tuple(group.ok[0].unavailable.get(column.metric, "not recorded") for column in COLUMNS)
    return Row(group.engine, slot, repeats, figures, absent)


def _largest(metric: str, groups: Sequence[Group]) -> float:
    return max((spread.high for group in groups if (spread := group.spread(metric))), default=0.0)


def _figure(spread: Spread | None, scale: Scale, largest: float) -> Figure | None:
    if spread is None:
        return None
    ends = [scale.write(spread.low), scale.write(spread.high)]
    values = (spread.low, spread.median, spread.high)
    low, middle, high = (100 * value / largest if largest > 0 else 0.0 for value in values)
    return Figure(
        median=scale.write(spread.median),
        span="" if len(spread.values) == 1 else f"{ends[0]}–{ends[1]}",
        raw=f"median {spread.median:.6g} of {count(len(spread.values), 'repeat')}: "
        + ", ".join(f"{value:.6g}" for value in spread.values),
        strip=(low, middle, high),
    )


def _every_metric(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """All the harness recorded, for those who look for a metric that has no column."""
    keys = sorted({key for group in groups for cell in group.ok for key in cell.metrics})
    return [(key, [_brief(key, group.spread(key)) for group in groups]) for key in keys]


def _brief(key: str, spread: Spread | None) -> str:
    if spread is None:
        return "–"
    median = quantity(key, spread.median)
    return (
        median if spread.low == spread.high else f"{median} ({quantity(key, spread.low)}–{quantity(key, spread.high)})"
    )
