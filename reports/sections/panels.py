"""What a figure of several panels is made of, and its legend. A panel is as wide as a phone, so panels stack there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reports.drawing import DASHES, SERIES
from reports.evidence import Evidence
from reports.rendering import Section, render
from results.query import Run

# A sweep may have hundreds of workloads: the table has them all, figures would drown it and the page's size.
MOST_WORKLOADS = 12


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing with its title; `slot` is set when the panel belongs to a single engine. `about` is its figure."""

    title: str
    svg: Markup
    slot: int | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: an engine's line."""

    engine: str
    colour: int
    dashes: str


@dataclass(frozen=True, slots=True)
class FigureSet:
    """One captioned figure; its title is the workload it is about."""

    title: str
    label: str
    panels: tuple[Panel, ...]
    caption: str = ""
    legend: tuple[Key, ...] = ()
    shades: bool = False
    small: bool = False


def legend(run: Run, workload: str, evidence: Evidence) -> tuple[Key, ...]:
    """The engines that have something to show on this workload."""
    return keys(run, [engine for engine in run.engines if (engine, workload) in evidence.latencies])


def keys(run: Run, engines: Sequence[str]) -> tuple[Key, ...]:
    """An engine keeps its colour and dashes throughout the page: they go by its place in the run."""
    return tuple(_key(engine, run.engines.index(engine)) for engine in engines)


def _key(engine: str, slot: int) -> Key:
    return Key(engine, slot % SERIES, " ".join(f"{length:g}" for length in DASHES[slot % len(DASHES)]))


def left_out(run: Run) -> str:
    extra = len(run.workloads) - MOST_WORKLOADS
    return f"Figures for the first {MOST_WORKLOADS} workloads; {extra} more are in the tables." if extra > 0 else ""


def of_steps(
    run: Run,
    evidence: Evidence,
    key: str,
    title: str,
    intro: str,
    draw: Callable[[Run, Evidence, int, str], FigureSet | None],
) -> Section:
    """A section of one figure set per workload, drawn from the steps; a workload without any is left out."""
    drawn = [draw(run, evidence, index, workload) for index, workload in enumerate(run.workloads[:MOST_WORKLOADS])]
    figures = [figure for figure in drawn if figure]
    nothing = "No steps were recorded."
    body = render("panels.html", figures=figures, intro=intro, left_out=left_out(run), nothing=nothing)
    return Section(key, title, body)
