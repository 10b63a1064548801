"""All that the report takes from the tables of the cells. Failed cells give no figures, so theirs are not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reports.latencies import Latencies
from reports.timelines import Timeline, read_timeline
from results.errors import ResultsError
from results.query import Group, Run

Key = tuple[str, str]  # engine, workload


@dataclass(frozen=True, slots=True)
class Evidence:
    """Per engine and workload: latencies pooled over repeats, a timeline per repeat. `unreadable` explains the gaps."""

    latencies: Mapping[Key, Latencies]
    timelines: Mapping[Key, tuple[Timeline, ...]]
    unreadable: tuple[str, ...]


def gather(run: Run) -> Evidence:
    unreadable: list[str] = []
    latencies: dict[Key, Latencies] = {}
    timelines: dict[Key, tuple[Timeline, ...]] = {}
    for group in run.groups():
        if group.ok:
            key = group.engine, group.workload
            latencies[key] = _latencies(run, group, unreadable)
            timelines[key] = _timelines(run, group, unreadable)
    return Evidence(latencies, timelines, tuple(unreadable))


def _latencies(run: Run, group: Group, unreadable: list[str]) -> Latencies:
    pooled = Latencies()
    for cell in group.ok:
        try:
            pooled.add_cell(run.cell_dir(cell))
        except ResultsError as error:
            unreadable.append(str(error))
    return pooled


def _timelines(run: Run, group: Group, unreadable: list[str]) -> tuple[Timeline, ...]:
    found: list[Timeline] = []
    for cell in group.ok:
        try:
            timeline = read_timeline(run.cell_dir(cell))
        except ResultsError as error:
            unreadable.append(str(error))
        else:
            found += [timeline] if timeline else []
    return tuple(found)
