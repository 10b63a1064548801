"""The overlap timeline: what every unit of the machine did during a few steps, op by op, for each engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reports import labels, lanes
from reports.drawing import SERIES
from reports.evidence import Evidence, Traced
from reports.rendering import Section, render
from reports.traces import Excerpt, Op
from reports.values import listing, percent, seconds, span
from results.query import Run

# A timeline has hundreds of blocks: more workloads would make a heavy page and say the same.
MOST_WORKLOADS = 4


@dataclass(frozen=True, slots=True)
class OpRow:
    """All ops of one name on one lane, for those who cannot hover over a block."""

    lane: str
    name: str
    number: int
    total: str
    longest: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One engine's steps."""

    engine: str
    slot: int
    about: str
    units: tuple[tuple[str, str], ...]  # each with the share of time that it was busy
    drawing: Markup
    steps: tuple[lanes.Mark, ...]
    times: tuple[lanes.Mark, ...]
    rows: tuple[OpRow, ...]


def build(run: Run, evidence: Evidence) -> Section:
    traced = [workload for workload in run.workloads if any(key[1] == workload for key in evidence.traces)]
    figures = [_figure(run, evidence, workload) for workload in traced[:MOST_WORKLOADS]]
    extra = len(traced) - MOST_WORKLOADS
    body = render("overlap.html", figures=figures, extra=max(0, extra), most=MOST_WORKLOADS)
    return Section("timeline", "Timeline", body)


def _figure(run: Run, evidence: Evidence, workload: str) -> dict[str, object]:
    label = labels.of(cell for group in run.groups(workload) for cell in group.ok)
    found = [
        (slot, engine, evidence.traces[engine, workload])
        for slot, engine in enumerate(run.engines)
        if (engine, workload) in evidence.traces
    ]
    sorts = {lanes.sort_of(op) for _, _, traced in found for op in traced.excerpt.ops}
    return {
        "workload": workload,
        "label": label,
        "panels": [_panel(slot, engine, traced, workload, label) for slot, engine, traced in found],
        "sorts": [(lanes.SLOTS[sort], sort.value) for sort in lanes.Sort if sort in sorts],
    }


def _panel(slot: int, engine: str, traced: Traced, workload: str, label: str) -> Panel:
    excerpt = traced.excerpt
    lasted = seconds(excerpt.end_s - excerpt.start_s)
    shown = span(str(excerpt.steps[0]), str(excerpt.steps[-1]))
    units = tuple((name, percent(_busy(excerpt, track))) for track, name in excerpt.lanes.items())
    busy = listing(f"{name} {share}" for name, share in units)
    word = "step" if len(excerpt.steps) == 1 else "steps"
    alt = f"{engine} on {workload}, {label}: {word} {shown}, {lasted}. Busy: {busy}."
    return Panel(
        engine,
        slot % SERIES,
        f"{word} {shown} of repeat {traced.repeat}, {lasted}. The trace has steps {span(*map(str, excerpt.traced))}.",
        units,
        lanes.draw(excerpt, alt),
        tuple(lanes.step_marks(excerpt)),
        tuple(lanes.time_marks(excerpt)),
        tuple(_rows(excerpt)),
    )


def _busy(excerpt: Excerpt, track: int) -> float:
    """Ops of one track do not overlap: a trace gives a unit as many tracks as it needs for that."""
    length = excerpt.end_s - excerpt.start_s
    return sum(op.end_s - op.start_s for op in excerpt.ops if op.track == track) / length if length > 0 else 0.0


def _rows(excerpt: Excerpt) -> list[OpRow]:
    """Layers of one kind together: `attention 3` counts as attention."""
    alike: dict[tuple[int, str], list[Op]] = {}
    for op in excerpt.ops:
        alike.setdefault((op.track, op.name.split(" ", 1)[0]), []).append(op)
    return [_row(excerpt.lanes[track], name, ops) for (track, name), ops in alike.items()]


def _row(lane: str, name: str, ops: Sequence[Op]) -> OpRow:
    lasted = [op.end_s - op.start_s for op in ops]
    return OpRow(lane, name, len(ops), seconds(sum(lasted)), seconds(max(lasted)))
