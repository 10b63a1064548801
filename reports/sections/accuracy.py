"""Predicted against observed: how well each engine's predictor knew the time that a step would take."""

from __future__ import annotations

from reports import charts, labels
from reports.drawing import SERIES, Alt
from reports.evidence import Evidence
from reports.predictions import Predictions
from reports.rendering import Section, render
from reports.sections.panels import MOST_WORKLOADS, FigureSet, Panel, left_out
from reports.values import count, listing, percent, time_scale
from results.query import Run

INTRO = (
    "What a step would take, as the engine’s predictor had it, against what it took; repeats pooled. On the dashed "
    "line the two agree, above it the prediction was too long. "
    "Error: |predicted − observed| / observed, median over steps."
)


def build(run: Run, evidence: Evidence) -> Section:
    figures = [
        drawn
        for index, workload in enumerate(run.workloads[:MOST_WORKLOADS])
        if (drawn := _figure(run, evidence, index, workload))
    ]
    nothing = "Nothing was predicted." if any(seen.steps for seen in evidence.predictions.values()) else "No steps."
    left = left_out(run) if figures else ""
    body = render("panels.html", figures=figures, intro=INTRO, left_out=left, nothing=nothing)
    return Section("prediction", "Predicted against observed", body)


def _figure(run: Run, evidence: Evidence, index: int, workload: str) -> FigureSet | None:
    label = labels.of(cell for group in run.groups(workload) for cell in group.ok)
    seen = {engine: evidence.predictions.get((engine, workload), Predictions()) for engine in run.engines}
    panels = tuple(
        _panel(run.engines.index(engine), engine, found, f"step{index}", workload, label)
        for engine, found in seen.items()
        if found.predicted
    )
    if not panels:
        return None
    silent = [engine for engine, found in seen.items() if found.steps and not found.predicted]
    caption = f"Nothing was predicted by {listing(silent)}." if silent else ""
    return FigureSet(workload, label, panels, caption, small=True)


def _panel(slot: int, engine: str, seen: Predictions, key: str, workload: str, label: str) -> Panel:
    points = seen.points()
    error = f"median error {error_text(seen.median_error)}"
    said = f"{engine} on {workload}, {label}: predicted against observed time of {count(seen.predicted, 'step')}"
    scale = time_scale([*points.observed_s, *points.predicted_s])
    drawing = charts.predicted(slot, points, scale, Alt(f"{key}e{slot}", f"{said}, {error}."))
    return Panel(engine, drawing, slot % SERIES, f"{error}, {count(seen.predicted, 'step')}")


def error_text(share: float | None) -> str:
    """Percent to one place; an emulated or simulated machine may well keep to its model to the last digit."""
    if share is None:
        return "unknown"
    return "under 0.1 %" if share < 0.001 else percent(share, 1)
