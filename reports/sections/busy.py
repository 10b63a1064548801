"""Where the time went: the share of serving time that every unit of the machine worked, or waited in a step."""

from __future__ import annotations

from functools import reduce
from operator import add

from reports import charts, labels
from reports.drawing import SERIES, Alt
from reports.evidence import Evidence
from reports.rendering import Section
from reports.sections.panels import FigureSet, Panel, of_steps
from reports.timelines import Busy
from reports.values import listing, percent
from results.query import Run

UNITS = (
    ("gpu", "GPU"),
    ("cpu", "CPU"),
    ("h2d", "to GPU"),
    ("d2h", "from GPU"),
    ("disk", "disk"),
)

INTRO = "Share of the serving time in which each unit of the machine worked, repeats pooled."


def build(run: Run, evidence: Evidence) -> Section:
    return of_steps(run, evidence, "busy", "Where the time went", INTRO, _figure)


def _figure(run: Run, evidence: Evidence, index: int, workload: str) -> FigureSet | None:
    totals = {
        engine: reduce(add, (timeline.busy for timeline in timelines))
        for engine in run.engines
        if (timelines := evidence.timelines.get((engine, workload)))
    }
    if not totals:
        return None
    label = labels.of(cell for group in run.groups(workload) for cell in group.ok)
    used = [(unit, title) for unit, title in UNITS if any(busy.units_s[unit] > 0 for busy in totals.values())]
    panels = tuple(
        _panel(run.engines.index(engine), engine, busy, used or list(UNITS[:1]), f"busy{index}", workload, label)
        for engine, busy in totals.items()
    )
    return FigureSet(workload, label, panels, shades=True, small=True)


def _panel(
    slot: int, engine: str, busy: Busy, units: list[tuple[str, str]], key: str, workload: str, label: str
) -> Panel:
    said = listing(f"{title} {percent(busy.share(unit)[0])}" for unit, title in units)
    alt = Alt(f"{key}e{slot}", f"{engine} on {workload}, {label}: share of serving time busy: {said}.")
    return Panel(engine, charts.busy_bars(slot, busy, units, alt), slot % SERIES)
