"""Latency distributions: one figure per workload, with a panel each for TTFT, TPOT and the gaps between tokens."""

from __future__ import annotations

from reports import charts, labels
from reports.drawing import Alt
from reports.evidence import Evidence
from reports.latencies import Curve
from reports.rendering import Section, render
from reports.sections.panels import MOST_WORKLOADS, FigureSet, Panel, left_out, legend
from reports.values import listing, seconds, time_scale
from results.query import Run

KINDS = (
    ("ttft", "Time to first token (TTFT)"),
    ("tpot", "Time per output token (TPOT)"),
    ("itl", "Gap between tokens (ITL)"),
)

INTRO = (
    "Share of the requests (for ITL: of the gaps) that took at most so long. Repeats pooled, warm-up left out, "
    "finished requests only."
)


def build(run: Run, evidence: Evidence) -> Section:
    figures = [
        figure
        for index, workload in enumerate(run.workloads[:MOST_WORKLOADS])
        if (figure := _figure(run, evidence, index, workload))
    ]
    nothing = "No latencies were recorded."
    body = render("panels.html", figures=figures, intro=INTRO, left_out=left_out(run), nothing=nothing)
    return Section("latency", "Latency", body)


def _figure(run: Run, evidence: Evidence, index: int, workload: str) -> FigureSet | None:
    label = labels.of(cell for group in run.groups(workload) for cell in group.ok)
    panels = [
        panel
        for kind, title in KINDS
        if (panel := _panel(run, evidence, workload, kind, title, f"ecdf{index}{kind}", label))
    ]
    if not panels:
        return None
    return FigureSet(workload, label, tuple(panels), legend=legend(run, workload, evidence))


def _panel(run: Run, evidence: Evidence, workload: str, kind: str, title: str, key: str, label: str) -> Panel | None:
    curves: list[tuple[str, Curve]] = []
    for engine in run.engines:
        seen = evidence.latencies.get((engine, workload))
        curve = getattr(seen, kind).curve() if seen else None
        if curve:
            curves.append((engine, curve))
    if not curves:
        return None
    medians = listing(f"{engine} {seconds(curve.percentile(0.5))}" for engine, curve in curves)
    alt = Alt(key, f"{title} on {workload}, {label}, cumulative distribution. Medians: {medians}.")
    scale = time_scale(curve.percentile(0.9) for _, curve in curves)
    return Panel(title, charts.ecdf([(run.engines.index(engine), curve) for engine, curve in curves], scale, alt))
