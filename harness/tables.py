"""Rows and columns on a terminal. What stands in them is worked out elsewhere; only the spread over repeats is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from harness.answers import Range
    from harness.catalogue import Listing
    from harness.claim_verdicts import Verdict
    from harness.doctor import Finding
    from harness.explain import Explanation
    from harness.needs import CellNeeds
    from harness.recommend import Recommendation
    from results.query import Group
    from results.schema import CellSummary, RunSummary

# (heading, metric, factor, format): the few figures that say who was faster; the report has the rest
FIGURES = (
    ("output tokens/s", "output_tokens_per_s", 1.0, ",.1f"),
    ("TTFT p50 s", "ttft_s_p50", 1.0, ".3f"),
    ("TPOT mean ms", "tpot_s_mean", 1e3, ".2f"),
    ("TPOT p90 ms", "tpot_s_p90", 1e3, ".2f"),
    ("E2E mean s", "e2e_s_mean", 1.0, ".2f"),
)


def listing_table(listing: Listing) -> Table:
    return _table(None, listing.columns, listing.rows)


def result_table(summary: RunSummary) -> Table:
    """One row per engine and workload: the median over its good repeats. Who took too much is marked."""
    from results.beliefs import skewed_groups
    from results.query import Group

    labels = sorted({str(cell.label) for cell in summary.cells})
    members: dict[tuple[str, str], list[CellSummary]] = {}
    for cell in summary.cells:
        members.setdefault((cell.workload, cell.engine), []).append(cell)
    groups = [Group(engine, workload, tuple(cells)) for (workload, engine), cells in members.items()]
    rows = [(group.workload, _marked(group), _tally(group), *_medians(group)) for group in groups]
    headings = ("workload", "engine", "cells ok", *(heading for heading, *_ in FIGURES))
    if any(cell.draws for cell in summary.cells):  # beside the throughput
        rows = [(*row[:4], _band(group), *row[4:]) for row, group in zip(rows, groups, strict=True)]
        headings = (*headings[:4], "band", *headings[4:])
    if losses := {id(each.group): each.of_unskewed for each in skewed_groups(groups)}:
        told = [losses.get(id(group)) for group in groups]
        rows = [(*row[:4], "-" if of is None else f"{of:.3f}", *row[4:]) for row, of in zip(rows, told, strict=True)]
        headings = (*headings[:4], "of unskewed", *headings[4:])
    return _table(f"results, {' and '.join(labels)}", headings, rows, right_from=2)


def plan_table(title: str, needs: Sequence[CellNeeds]) -> Table:
    rows = (
        (
            str(need.cell.order + 1),
            need.cell.cell_id,
            f"{need.requests:,}",
            f"{need.prompt_tokens:,}",
            f"{need.output_tokens:,}",
            f"{need.last_arrival_s:,.0f}",
            "?" if need.about_s is None else f"{need.about_s:,.0f}",
            need.memory,
        )
        for need in needs
    )
    headings = (
        "#",
        "cell",
        "requests",
        "prompt tokens",
        "output tokens",
        "last arrival s",
        "serves about s",
        "weights + one request",
    )
    return _table(title, headings, rows, right_from=2)


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """What each claim says, and why the verdict is what it is, takes sentences: those are told beneath."""
    rows = [
        (each.claim.id, each.claim.who, each.claim.version, each.claim.expect.words, each.word.value, each.label or "-")
        for each in verdicts
    ]
    return _table("published claims", ("claim", "who", "version", "published", "verdict", "label"), rows, right_from=6)


def recommendation_table(found: Recommendation) -> Table:
    """Ranked, with bands over the machines within the catalogue's ranges. Who has packed weights is marked."""
    by = found.ranked_by == "goodput_rps"
    priced = any(row.cost_per_million for row in found.ranked)
    rows = [
        (
            str(place),
            row.engine if row.own_weights else f"{row.engine} (other weights)",
            *([_range(row.score, 1.0, ".2f")] if by else []),
            _range(row.tokens_per_s, 1.0, ",.1f"),
            _range(row.over_baseline, 1.0, ".2f"),
            _range(row.ttft_s, 1.0, ".2f"),
            _range(row.tpot_s, 1e3, ".0f"),
            *([_range(row.cost_per_million, 1.0, ".2f")] if priced else []),
        )
        for place, row in enumerate(found.ranked, 1)
    ]
    headings = (
        "#",
        "engine",
        *(["goodput/s"] if by else []),
        "output tokens/s",
        "x gpu_only",
        "TTFT mean s",
        "TPOT mean ms",
        *(["cost per million"] if priced else []),
    )
    return _table(f"{found.hardware}, {found.label}, (band)", headings, rows, right_from=2)


def _range(found: Range | None, factor: float, pattern: str) -> str:
    if found is None:
        return "-"
    value, low, high = (format(each * factor, pattern) for each in (found.value, found.low, found.high))
    return f"{value} ({low}-{high})"


def doctor_table(findings: Iterable[Finding]) -> Table:
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "missing": "[red]missing[/]"}
    table = Table("check", "state", "detail", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(escape(finding.check), marks[finding.state], escape(finding.detail))
    return table


def _marked(group: Group) -> str:
    return f"{group.engine} (unfair)" if any(cell.unfair for cell in group.cells) else group.engine


def _tally(group: Group) -> str:
    return f"{len(group.ok)}/{len(group.cells)}"


def _medians(group: Group) -> list[str]:
    shown = []
    for _, metric, factor, pattern in FIGURES:
        values = [cell.metrics[metric] for cell in group.shown if metric in cell.metrics]
        shown.append(format(median(values) * factor, pattern) if values else "-")
    return shown


def _band(group: Group) -> str:
    """Of the throughput, over the machines that the catalogue entry may as well describe."""
    _, metric, factor, pattern = FIGURES[0]
    band = group.band(metric) if group.shown else None
    return "-" if band is None else " - ".join(format(end * factor, pattern) for end in band)


def explanation_tables(found: Explanation) -> list[tuple[str, Table]]:
    """The state and its times, what each mode would yield, what each engine would do."""
    state, times = found.state, found.times
    rule = "-"
    if times.gpu_over_cpu is not None and times.bound is not None:
        sign = "<" if times.asymmetric_beats_gpu_only else ">="
        rule = f"{times.gpu_over_cpu:.2f} {sign} {times.bound:.2f}"
    layer = [
        ("T_lin, linear parts", f"{times.linear_s * 1e3:.3f} ms"),
        ("T_gatt, attention on the GPU", f"{times.accel_attention_s * 1e3:.3f} ms"),
        ("T_catt, attention on the host and the way", f"{times.host_attention_s * 1e3:.3f} ms"),
        ("r = T_gatt / T_lin", f"{times.r:.3f}"),
        ("N_G / N_C against 2 / r + 3 + r", rule),
    ]
    decodes = f"{state.accel_rows} decodes on the GPU, {state.host_rows} on the host, context {state.context}"
    rates = [(rate.mode, f"{rate.tokens_per_s:,.1f}") for rate in found.modes]
    choices = [
        (
            choice.engine,
            choice.mode,
            str(choice.accel_decodes),
            " + ".join(map(str, choice.host_decodes)) or "-",
            str(choice.waited_for),
            _patience(choice.patience_us),
            str(choice.flying),
            str(choice.standing),
        )
        for choice in found.choices
    ]
    headings = ("engine", "mode", "on the GPU", "host, per batch", "keep up", "patience", "lag behind", "stand still")
    placed = [(choice.engine, choice.placement) for choice in found.choices if choice.placement]
    placements = [("where things are", _table(None, ("engine", "placement"), placed, 2))] if placed else []
    return [
        (f"one layer, {found.label}: {decodes}", _table(None, ("time", "value"), layer, 1)),
        (
            f"tokens per second, {found.label}, what happens once per step left out",
            _table(None, ("mode", "tokens/s"), rates, 1),
        ),
        ("what each engine would do", _table(None, headings, choices, 2)),
        *placements,
    ]


def _patience(patience_us: int | None) -> str:
    if patience_us is None:
        return "-"
    return "without end" if patience_us < 0 else f"{patience_us:,} us"


def _table(
    title: str | None, headings: Sequence[str], rows: Iterable[Sequence[str]], right_from: int | None = None
) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for position, heading in enumerate(headings):
        is_figure = right_from is not None and position >= right_from
        is_name = right_from is not None and not is_figure  # a name cut short names nothing
        table.add_column(heading, justify="right" if is_figure else "left", no_wrap=is_name)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
