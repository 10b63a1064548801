"""A workload over its request rate: throughput and latency at each rate, and what no engine beats in both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from reports import charts, labels
from reports.charts import Sweep
from reports.drawing import Alt
from reports.estimates import Estimate, estimate
from reports.judgement import unfair
from reports.rendering import render
from reports.sections.panels import FigureSet, Panel, keys
from reports.sweeps import RateSweep, pareto_front, rate_sweeps
from reports.values import Scale, listing, plain_scale, time_scale
from results.query import Group, Run

MOST_SWEEPS = 12

THROUGHPUT = "output_tokens_per_s"
# The latency of the front: the first of these that every point has.
LATENCIES = (
    ("normalized_latency_s_per_token_p50", "normalized latency p50"),
    ("e2e_s_p50", "E2E p50"),
    ("ttft_s_p50", "TTFT p50"),
)
ASKED = "requests/s asked for"


@dataclass(frozen=True, slots=True)
class Point:
    """One engine at one rate."""

    engine: str
    rate: float
    group: Group


def build(run: Run) -> Markup:
    figures = [_figure(run, index, sweep) for index, sweep in enumerate(rate_sweeps(run.workloads)[:MOST_SWEEPS])]
    drawn = [figure for figure in figures if figure]
    return render("panels.html", figures=drawn, intro="", left_out="", nothing="") if drawn else Markup("")


def _figure(run: Run, index: int, sweep: RateSweep) -> FigureSet | None:
    points = [
        Point(group.engine, rate, group)
        for rate, workload in sweep.points
        for group in run.groups(workload)
        if group.ok and group.spread(THROUGHPUT)
    ]
    if not points:
        return None
    label = labels.of(cell for point in points for cell in point.group.ok)
    about = f"{sweep.base}, {label}"
    panels = [
        _over_rate(run, points, THROUGHPUT, "Output tokens/s", f"rate{index}a", about),
        _over_rate(run, points, "ttft_s_p50", "TTFT p50", f"rate{index}b", about),
    ]
    front, sentence = _front(run, points, f"rate{index}c", about)
    caption = f"{_span_words(points)} {sentence} Rates are those asked for; what a schedule came to is under Fairness."
    engines = [engine for engine in run.engines if any(point.engine == engine for point in points)]
    shown = tuple(panel for panel in (*panels, front) if panel)
    return FigureSet(f"{sweep.base} over its request rate", label, shown, caption, keys(run, engines))


def _span_words(points: Sequence[Point]) -> str:
    if any(len(point.group.ok) > 1 for point in points):
        return "Medians of the repeats; upright lines: lowest to highest."
    return "Upright lines: 95 % interval within the repeat."


def _over_rate(run: Run, points: Sequence[Point], metric: str, title: str, key: str, about: str) -> Panel | None:
    lines = [
        Sweep(slot, tuple(rate for rate, _ in found), tuple(value for _, value in found))
        for slot, engine in enumerate(run.engines)
        if (found := _values([point for point in points if point.engine == engine], metric))
    ]
    if not lines:
        return None
    scale = _scale(metric, [value for line in lines for value in line.up])
    said = "; ".join(f"{run.engines[line.slot]} {_said(line, scale)}" for line in lines)
    alt = Alt(key, f"{title} of {about}, over the rate asked for: {said}.")
    return Panel(title, charts.curves(lines, scale, ASKED, alt))


def _values(points: Sequence[Point], metric: str) -> list[tuple[float, Estimate]]:
    return [(point.rate, value) for point in points if (value := estimate(point.group, metric))]


def _scale(metric: str, values: Sequence[Estimate]) -> Scale:
    medians = [value.value for value in values]
    if metric == THROUGHPUT:
        return plain_scale(medians)
    scale = time_scale(medians)
    return replace(scale, unit=f"{scale.unit}/token") if "per_token" in metric else scale


def _said(line: Sweep, scale: Scale) -> str:
    pairs = zip(line.across, line.up, strict=True)
    return ", ".join(f"{scale.write(value.value)}{f' {scale.unit}' * bool(scale.unit)} at {x:g}" for x, value in pairs)


def _on_front(run: Run, points: Sequence[Point]) -> str:
    rates = {engine: [f"{point.rate:g}" for point in points if point.engine == engine] for engine in run.engines}
    return "; ".join(f"{engine} at {listing(found)} requests/s" for engine, found in rates.items() if found)


def _front(run: Run, points: Sequence[Point], key: str, about: str) -> tuple[Panel | None, str]:
    """The panel, and a sentence with the points that are on the front. What took more than its share is not on it."""
    chosen = next(((m, t) for m, t in LATENCIES if all(point.group.spread(m) for point in points)), None)
    if chosen is None:
        return None, ""
    metric, title = chosen
    latency = [value for _, value in _values(points, metric)]
    throughput = [value.value for _, value in _values(points, THROUGHPUT)]
    lines = [
        Sweep(slot, tuple(throughput[place] for place in places), tuple(latency[place] for place in places))
        for slot, engine in enumerate(run.engines)
        if (places := [place for place, point in enumerate(points) if point.engine == engine])
    ]
    fair = [place for place, point in enumerate(points) if not unfair(point.group.ok)]
    on_front = [fair[at] for at in pareto_front([(throughput[place], latency[place].value) for place in fair])]
    best = [(throughput[place], latency[place].value) for place in on_front]
    said = _on_front(run, [points[place] for place in on_front])
    sentence = f"Ringed, the Pareto front: no other point has more throughput and less latency: {said}."
    if len(fair) < len(points):
        sentence += " Unfair engines are drawn, but not on the front."
    alt = Alt(key, f"{title} against output tokens per second of {about}. On the Pareto front: {said}.")
    scale = _scale(metric, latency)
    drawing = charts.front(lines, best, scale, "output tokens/s", alt)
    return Panel(f"{title[:1].upper()}{title[1:]} against throughput", drawing), sentence
