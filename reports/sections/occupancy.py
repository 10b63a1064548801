"""How full each engine was while it served: requests running, KV blocks in use on the accelerator and the host, and
what weights, buffers and those blocks occupy on each tier.
"""

from __future__ import annotations

from reports import charts, labels
from reports.drawing import Alt
from reports.evidence import Evidence
from reports.rendering import Section
from reports.sections.panels import FigureSet, Panel, legend, of_steps
from reports.values import byte_count, byte_scale, figure, listing
from results.query import Run

SERIES = (
    ("running", "Requests running"),
    ("accel_blocks_used", "KV blocks used, accelerator"),
    ("host_blocks_used", "KV blocks used, host"),
    ("accel_bytes", "Memory, accelerator"),
    ("host_bytes", "Memory, host"),
    ("disk_bytes", "Disk"),
)

INTRO = (
    "Averages over short spans of the serving time. Line: median of the repeats; band: lowest to highest. Memory: "
    "weights and buffers, and KV in use, where an engine says what they take."
)


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
    found = [(slot, evidence.timelines.get((engine, workload), ())) for slot, engine in enumerate(run.engines)]
    lines = [(slot, [each for each in timelines if column in each.values]) for slot, timelines in found]
    lines = [(slot, timelines) for slot, timelines in lines if timelines]
    peaks = {slot: max(float(timeline.values[column].max()) for timeline in timelines) for slot, timelines in lines}
    if not any(peaks.values()):
        return None
    is_bytes = column.endswith("_bytes")
    said = listing(
        f"{run.engines[slot]} {byte_count(peak) if is_bytes else figure(round(peak, 1))}"
        for slot, peak in peaks.items()
    )
    alt = Alt(f"{key}{column}", f"{title} on {workload} over time, {label}. Peaks: {said}.")
    return Panel(title, charts.over_time(lines, column, alt, byte_scale(peaks.values()) if is_bytes else None))
