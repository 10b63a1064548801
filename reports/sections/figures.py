"""The result tables: engines by workload, each figure with its span, and all other metrics on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reports import labels
from reports.estimates import Estimate, Source, estimate
from reports.judgement import broke_parity, unfair
from reports.rendering import Section, render
from reports.sections import absent, sweep
from reports.sections.problems import reason_of
from reports.values import GAP, Scale, count, listing, plain_scale, quantity, span, time_scale, time_unit
from results.draws import Band
from results.query import Group, Run, Spread


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of the summary. Columns of one family are times, and have one unit throughout the page."""

    title: str
    metric: str
    family: str = ""
    optional: bool = False  # left out when no cell has it


COLUMNS = (
    Column("Output tokens/s", "output_tokens_per_s"),
    Column("Requests/s", "requests_per_s"),
    Column("Goodput/s", "goodput_rps", optional=True),
    Column("Saturation/s", "saturation_rps", optional=True),
    Column("TTFT p50", "ttft_s_p50", "ttft"),
    Column("TTFT p99", "ttft_s_p99", "ttft"),
    Column("TPOT p50", "tpot_s_p50", "tpot"),
    Column("TPOT p99", "tpot_s_p99", "tpot"),
    Column("E2E p50", "e2e_s_p50", "e2e"),
    Column("Preemptions", "preemptions"),
)
TAILS = ("p99", "p95", "p90", "max")


@dataclass(frozen=True, slots=True)
class Bar:
    """From zero, in percent of the largest in its column."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the table."""

    median: str
    span: str
    raw: str
    bar: Bar | None = None
    band: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One engine. Without a successful repeat it has a status and a reason, and no figures."""

    engine: str
    slot: int
    repeats: str
    figures: tuple[Figure | None, ...] = ()
    why_absent: tuple[str, ...] = ()
    window: tuple[str, str] = ("", "")
    unfair: tuple[str, ...] = ()
    status: str = ""
    reason: str = ""


def build(run: Run) -> Section:
    groups = run.groups()
    columns = [_known(column, groups) for column in COLUMNS if not column.optional or _medians(column, groups)]
    units = {column.family: _unit(column.family, groups) for column in columns if column.family}
    body = render(
        "figures.html",
        sweeps=sweep.build(run),
        tables=[_table(run, workload, columns, units) for workload in run.workloads],
        windows=int(any(group.spread("window_s") for group in groups)),
        beneath=_beneath(groups),
        banded=_banded(groups),
        absent=absent.lines(run),
    )
    return Section("results", "Results", body)


def _known(column: Column, groups: Sequence[Group]) -> Column:
    """The highest percentile that any engine has, or the largest: with few requests a p99 has dashes alone."""
    for tail in TAILS:
        other = replace(column, title=column.title.replace("p99", tail), metric=column.metric.replace("p99", tail))
        if _medians(other, groups):
            return other
    return column


def _unit(family: str, groups: Sequence[Group]) -> str:
    return time_unit(value for column in COLUMNS if column.family == family for value in _medians(column, groups))


def _medians(column: Column, groups: Sequence[Group]) -> list[float]:
    return [spread.median for group in groups if (spread := group.spread(column.metric))]


def _beneath(groups: Sequence[Group]) -> str:
    """What the small figures are."""
    repeats = {len(group.ok) for group in groups if group.ok}
    if repeats == {1}:
        return "Beneath a percentile: its 95 % interval, from the order statistics of this one repeat."
    lowest = "Medians of the repeats; beneath, the lowest and the highest of them."
    return f"{lowest} Where there is one repeat, the 95 % interval within it." if 1 in repeats else lowest


def _banded(groups: Sequence[Group]) -> str:
    """What the bands are, where there are any."""
    told = next((cell.draws for group in groups for cell in group.ok if cell.draws is not None), None)
    if told is None:
        return ""
    drawn = max((len(row) for row in told.values.values()), default=0)
    return (
        f"In brackets, how sure the simulation is: the least and the most on {count(drawn, 'machine')} drawn from the "
        f"ranges of the {count(len(told.constants), 'constant')} of the catalogue that are uncertain."
    )


def _table(run: Run, workload: str, columns: Sequence[Column], units: Mapping[str, str]) -> dict[str, object]:
    groups = run.groups(workload)
    scales = [_scale(column, groups, units) for column in columns]
    rows = [_row(run, group, groups, columns, scales) for group in groups]
    return {
        "workload": workload,
        "label": labels.of(cell for group in groups for cell in group.cells),
        "columns": [(column.title, scale.unit, column.metric) for column, scale in zip(columns, scales, strict=True)],
        "rows": rows,
        "unfair": [(row.engine, listing(row.unfair)) for row in rows if row.unfair],
        "engines": [group.engine for group in groups],
        "every_metric": _every_metric(groups),
    }


def _scale(column: Column, groups: Sequence[Group], units: Mapping[str, str]) -> Scale:
    medians = _medians(column, groups)
    return time_scale(medians, units[column.family]) if column.family else plain_scale(medians)


def _row(run: Run, group: Group, groups: Sequence[Group], columns: Sequence[Column], scales: Sequence[Scale]) -> Row:
    slot = run.engines.index(group.engine)
    whole = count(len(group.cells), "repeat")
    repeats = whole if len(group.ok) == len(group.cells) else f"{len(group.ok)} of {whole}"
    if not group.ok:
        worst = next((cell for cell in group.cells if broke_parity(cell)), group.cells[0])
        return Row(group.engine, slot, repeats, status=str(worst.status), reason=reason_of(worst))
    figures = [
        _figure(
            estimate(group, column.metric),
            scale,
            None if index else _largest(column.metric, groups),
            group.band(column.metric),
        )
        for index, (column, scale) in enumerate(zip(columns, scales, strict=True))
    ]
    why = [group.ok[0].unavailable.get(column.metric, "not recorded") for column in columns]
    return Row(group.engine, slot, repeats, tuple(figures), tuple(why), _window(group), unfair(group.ok))


def _largest(metric: str, groups: Sequence[Group]) -> float:
    return max((found.high for group in groups if (found := estimate(group, metric))), default=0.0)


def _figure(found: Estimate | None, scale: Scale, largest: float | None, band: Band | None) -> Figure | None:
    """`largest` is given for the column that has bars."""
    if found is None:
        return None
    return Figure(
        median=scale.write(found.value),
        span="" if found.low == found.high else span(scale.write(found.low), scale.write(found.high)),
        raw=_raw(found),
        bar=Bar(*(100 * value / largest for value in (found.low, found.value, found.high))) if largest else None,
        band="" if band is None or band[0] == band[1] else f"[{span(*map(scale.write, band))}]",
    )


def _raw(found: Estimate) -> str:
    values = ", ".join(f"{value:.6g}" for value in found.values)
    text = f"median {found.value:.6g} of {count(len(found.values), 'repeat')}: {values}"
    if found.source is not Source.INTERVAL:
        return text
    return f"{found.value:.6g}; {found.source.value}: {found.low:.6g} to {found.high:.6g}"


def _window(group: Group) -> tuple[str, str]:
    """How long the rates were counted, and over which part of the run: a plateau and a whole run compare badly."""
    length, plateau = group.spread("window_s"), group.spread("window_is_plateau")
    if length is None:
        return "–", ""
    kinds = {"plateau" if value else "whole run" for value in (plateau.values if plateau else ())}
    return f"{length.median:,.{1 if length.median < 100 else 0}f}{GAP}s", "mixed" if len(kinds) > 1 else "".join(kinds)


def _every_metric(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """All the harness recorded, for those who look for a metric that has no column."""
    keys = sorted({key for group in groups for cell in group.ok for key in cell.metrics})
    return [(key, [_brief(key, group.spread(key)) for group in groups]) for key in keys]


def _brief(key: str, spread: Spread | None) -> str:
    if spread is None:
        return "–"
    median = quantity(key, spread.median)
    if spread.low == spread.high:
        return median
    return f"{median} ({span(quantity(key, spread.low), quantity(key, spread.high))})"
