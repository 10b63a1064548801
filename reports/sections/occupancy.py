"""How full each engine was while it served: requests running, and KV blocks in use on the accelerator and the host."""

from __future__ import annotations

from reports import charts, labels
from reports.drawing import Alt
from reports.evidence import Evidence
from reports.rendering import Section
from reports.sections.panels import FigureSet, Panel, legend, of_steps
from reports.values import figure, listing
from results.query import Run

SERIES = (
    ("running", "Requests running"),
    ("accel_blocks_used", "KV blocks used, accelerator"),
    ("host_blocks_used", "KV blocks used, host"),
)

INTRO = "Averages over short spans of the serving time. Line: median of the repeats; band: lowest to highest."


def build(run: Run, evidence: Evidence) -> Section:
    return of_steps(run, evidence, "occupancy", "Over time", INTRO, _figure)


def _figure(run: Run, evidence: Evidence, index: int, workload: str) -> FigureSet | None:
    label = labels.of(cell for group in run.groups(workload) for cell in group.ok)
    panels = [panel for column in SERIES if (panel := _panel(run, evidence, workload, column, f"time{index}", label))]
    if not panels:
        return None
    return FigureSet(workload, label, tuple(panels), legend=legend(run, workload, evidence))


def _panel(run: Run, evidence: Evidence, workload: str, series: tuple[str, str], key: str, label: str) -> Panel | None:
    column, title = series
    lines = [(slot, evidence.timelines.get((engine, workload), ())) for slot, engine in enumerate(run.engines)]
    lines = [(slot, timelines) for slot, timelines in lines if timelines]
    peaks = {slot: max(float(timeline.values[column].max()) for timeline in timelines) for slot, timelines in lines}
    if not any(peaks.values()):
        return None
    said = listing(f"{run.engines[slot]} {figure(round(peak, 1))}" for slot, peak in peaks.items())
    alt = Alt(f"{key}{column}", f"{title} on {workload} over time, {label}. Peaks: {said}.")
    return Panel(title, charts.over_time(lines, column, alt))
