"""Which modes each scheduler ran in, which would have been best in hindsight, and what the difference cost in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from reports import labels
from reports.drawing import SERIES
from reports.rendering import Section, render
from reports.values import ABSENT, figure, percent, span
from results.query import Group, Run

REGRET, DECISION = "regret_share", "scheduler_us"
RAN, BEST = "mode_share_", "best_share_"
TIERS = (("accel_tpot_s_mean", "GPU"), ("host_tpot_s_mean", "host"))


@dataclass(frozen=True, slots=True)
class Row:
    """One engine on one workload: medians of its repeats, their range where there are several."""

    engine: str
    slot: int
    ran: tuple[str, ...]  # one per mode of the table
    best: tuple[str, ...]
    regret: str
    decision: str
    tiers: str


@dataclass(frozen=True, slots=True)
class Table:
    workload: str
    label: str
    modes: tuple[str, ...]
    rows: tuple[Row, ...]


def build(run: Run) -> Section | None:
    """None where no engine had a choice: then there is nothing to regret."""
    tables = [table for workload in run.workloads if (table := _table(run, workload))]
    return Section("modes", "Modes and regret", render("modes.html", tables=tables)) if tables else None


def _table(run: Run, workload: str) -> Table | None:
    groups = [group for group in run.groups(workload) if group.spread(REGRET)]
    if not groups:
        return None
    modes = tuple(
        dict.fromkeys(
            key.removeprefix(start)
            for start in (RAN, BEST)
            for group in groups
            for cell in group.ok
            for key in sorted(cell.metrics)
            if key.startswith(start)
        )
    )
    label = labels.of(cell for group in groups for cell in group.ok)
    return Table(workload, label, modes, tuple(_row(run, group, modes) for group in groups))


def _row(run: Run, group: Group, modes: Sequence[str]) -> Row:
    return Row(
        group.engine,
        run.engines.index(group.engine) % SERIES,
        tuple(_share(group, RAN + mode) for mode in modes),
        tuple(_share(group, BEST + mode) for mode in modes),
        _shares(group, REGRET),
        _decision(group),
        _tiers(group),
    )


def _share(group: Group, key: str) -> str:
    """A mode that a repeat never ran in has no figure there: nothing, not unknown."""
    values = [cell.metrics.get(key, 0.0) for cell in group.ok]
    return percent(median(values)) if any(values) else ABSENT


def _shares(group: Group, key: str) -> str:
    spread = group.spread(key)
    if spread is None:
        return ABSENT
    middle = percent(spread.median, 1)
    several = len(spread.values) > 1
    return f"{middle} ({span(percent(spread.low, 1), percent(spread.high, 1))})" if several else middle


def _decision(group: Group) -> str:
    middle, tail = group.spread(f"{DECISION}_p50"), group.spread(f"{DECISION}_p99")
    if middle is None:
        return ABSENT
    return figure(middle.median) + ("" if tail is None else f" ({figure(tail.median)})")


def _tiers(group: Group) -> str:
    """Milliseconds per token of requests on either side; a mean over both hides what the slower ones wait."""
    spreads = [(group.spread(key), name) for key, name in TIERS]
    said = [f"{figure(found.median * 1e3)} {name}" for found, name in spreads if found is not None]
    return ", ".join(said) or ABSENT
