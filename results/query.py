"""Questions about a run folder, finished or half-written: which cells there are, which are missing, what repeats say.

Reads only. A cell that cannot be read is listed with its reason; it never hides the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

from results.draws import Band
from results.errors import ResultsError
from results.schema import SUMMARY_FILE, CellSummary, Label, Manifest, Status
from results.store import RunFolder


@dataclass(frozen=True, slots=True)
class Spread:
    """One metric over the repeats of one engine on one workload."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Group:
    """All repeats of one engine on one workload, whatever became of them, in the order of the repeats."""

    engine: str
    workload: str
    cells: tuple[CellSummary, ...]

    @property
    def ok(self) -> tuple[CellSummary, ...]:
        return tuple(cell for cell in self.cells if cell.status == Status.OK)

    @property
    def shown(self) -> tuple[CellSummary, ...]:
        """Those whose figures may be shown: none where any repeat gave wrong tokens."""
        wrong = any(cell.parity is not None and cell.parity.held is False for cell in self.cells)
        return () if wrong else self.ok

    @property
    def comparable(self) -> tuple[CellSummary, ...]:
        """Those that a comparison may rest on: shown, and within the envelope that every engine was given."""
        return tuple(cell for cell in self.shown if not cell.unfair)

    @property
    def not_ok(self) -> tuple[CellSummary, ...]:
        return tuple(cell for cell in self.cells if cell.status != Status.OK)

    def spread(self, metric: str) -> Spread | None:
        """Over the repeats that succeeded and have the metric; None when there is none."""
        values = tuple(cell.metrics[metric] for cell in self.ok if metric in cell.metrics)
        return Spread(values) if values else None

    def band(self, metric: str) -> Band | None:
        """Around the median: what the uncertain constants of a simulated machine make of it."""
        spread = self.spread(metric)
        for cell in self.ok:
            nominal = cell.metrics.get(metric)
            found = cell.draws.band(metric, nominal) if cell.draws is not None and nominal else None
            if found is not None and spread is not None and nominal:
                return found[0] / nominal * spread.median, found[1] / nominal * spread.median
        return None


@dataclass(frozen=True, slots=True)
class Run:
    """A loaded run. `incomplete` cells were begun and never finished; `missing` ones were planned and never begun."""

    folder: RunFolder
    manifest: Manifest
    cells: tuple[CellSummary, ...]
    incomplete: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    verdicts: tuple[str, ...]

    @property
    def engines(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.engine for cell in self.cells))

    @property
    def workloads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.workload for cell in self.cells))

    @property
    def labels(self) -> tuple[Label, ...]:
        """Those of the cells, in a fixed order; a run without a cell has what its manifest announces."""
        found = {cell.label for cell in self.cells} or {self.manifest.label}
        return tuple(label for label in Label if label in found)

    def with_status(self, status: Status) -> tuple[CellSummary, ...]:
        return tuple(cell for cell in self.cells if cell.status == status)

    def groups(self, workload: str | None = None) -> tuple[Group, ...]:
        """Engine by workload, workloads outermost, both in the order in which the plan first names them."""
        members: dict[tuple[str, str], list[CellSummary]] = {}
        for cell in self.cells:
            members.setdefault((cell.workload, cell.engine), []).append(cell)
        return tuple(
            Group(engine, name, tuple(sorted(members[name, engine], key=lambda cell: cell.repeat)))
            for name in self.workloads
            for engine in self.engines
            if (name, engine) in members and workload in (None, name)
        )

    def paired_repeats(self) -> int:
        """The most repeats that any two engines both completed fairly on one workload: what a verdict can rest on."""
        most = 0
        for workload in self.workloads:
            repeats = [{cell.repeat for cell in group.comparable} for group in self.groups(workload)]
            most = max([most, *(len(one & other) for one, other in combinations(repeats, 2))])
        return most

    def cell_dir(self, cell: CellSummary) -> Path:
        return self.folder.cell_path(cell.cell_id)


def load_run(path: Path) -> Run:
    """Takes the folder as it is: a run still going, interrupted, or copied without its cells' tables."""
    folder = RunFolder.open(path)
    manifest = folder.manifest
    found, unreadable = _read_cells(folder)
    listed, verdicts, problem = _read_summary(folder)
    if problem:
        unreadable[SUMMARY_FILE] = problem
    for cell in listed:
        if cell.cell_id not in unreadable:
            found.setdefault(cell.cell_id, cell)
    planned = manifest.cells_planned
    begun = folder.cell_ids()
    known = found.keys() | unreadable.keys()
    return Run(
        folder=folder,
        manifest=manifest,
        cells=tuple(found[cell_id] for cell_id in _in_order(found, planned)),
        incomplete=tuple(_in_order((cell_id for cell_id in begun if cell_id not in known), planned)),
        missing=tuple(cell_id for cell_id in planned if cell_id not in known and cell_id not in begun),
        unreadable=unreadable,
        verdicts=verdicts,
    )


def _read_cells(folder: RunFolder) -> tuple[dict[str, CellSummary], dict[str, str]]:
    found: dict[str, CellSummary] = {}
    unreadable: dict[str, str] = {}
    for cell_id in folder.cell_ids():
        if not folder.is_complete(cell_id):
            continue
        try:
            found[cell_id] = folder.read_cell_summary(cell_id)
        except ResultsError as error:
            unreadable[cell_id] = str(error)
    return found, unreadable


def _read_summary(folder: RunFolder) -> tuple[tuple[CellSummary, ...], tuple[str, ...], str | None]:
    """The run's own summary is written last: its absence is normal, and the cells are the truth where both exist."""
    if not (folder.path / SUMMARY_FILE).is_file():
        return (), (), None
    try:
        summary = folder.read_run_summary()
    except ResultsError as error:
        return (), (), str(error)
    return summary.cells, summary.verdicts, None


def _in_order(cell_ids: Iterable[str], planned: tuple[str, ...]) -> list[str]:
    position = {cell_id: index for index, cell_id in enumerate(planned)}
    return sorted(cell_ids, key=lambda cell_id: (position.get(cell_id, len(position)), cell_id))
