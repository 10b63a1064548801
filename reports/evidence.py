"""All that the report takes from the files of the cells. Failed cells give no figures, so theirs are not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reports.latencies import Latencies
from reports.predictions import Predictions
from reports.timelines import Timeline, read_timeline
from reports.traces import Excerpt, read_excerpt
from results.errors import ResultsError
from results.memory_use import MemoryUse
from results.query import Run

Key = tuple[str, str]  # engine, workload
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Traced:
    """The excerpt of a trace, and the repeat it is from."""

    repeat: int
    excerpt: Excerpt


@dataclass(frozen=True, slots=True)
class Evidence:
    """Per engine and workload: latencies and predictions pooled over repeats, a timeline per repeat, one trace."""

    latencies: Mapping[Key, Latencies]
    timelines: Mapping[Key, tuple[Timeline, ...]]
    predictions: Mapping[Key, Predictions]
    traces: Mapping[Key, Traced]
    unreadable: tuple[str, ...]  # explains the gaps


def gather(run: Run) -> Evidence:
    reader = _Reader()
    latencies: dict[Key, Latencies] = {}
    timelines: dict[Key, tuple[Timeline, ...]] = {}
    predictions: dict[Key, Predictions] = {}
    traces: dict[Key, Traced] = {}
    for group in run.groups():
        if not group.ok:
            continue
        key = group.engine, group.workload
        folders = [run.cell_dir(cell) for cell in group.ok]
        latencies[key], predictions[key] = Latencies(), Predictions()
        for folder in folders:
            reader.read(latencies[key].add_cell, folder)
            reader.read(predictions[key].add_cell, folder)
        found = [(cell, reader.read(read_timeline, run.cell_dir(cell))) for cell in group.ok]
        timelines[key] = tuple(each.with_memory(MemoryUse.of(cell.resolved)) for cell, each in found if each)
        excerpt = reader.read(read_excerpt, folders[0])
        if excerpt:
            traces[key] = Traced(group.ok[0].repeat, excerpt)
    return Evidence(latencies, timelines, predictions, traces, tuple(dict.fromkeys(reader.unreadable)))


class _Reader:
    """Reads what can be read, and remembers why the rest could not."""

    def __init__(self) -> None:
        self.unreadable: list[str] = []

    def read(self, reading: Callable[[Path], Found], cell_dir: Path) -> Found | None:
        try:
            return reading(cell_dir)
        except ResultsError as error:
            self.unreadable.append(str(error))
            return None
