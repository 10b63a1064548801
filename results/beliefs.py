"""What engines lose where their beliefs were made wrong: each point of such a sweep over the one that has them right.

A cell says in `resolved` of which workload it is a point and whether it is the unskewed one. Cells of one repeat had
the same requests, so ratios are taken repeat by repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from results.query import Group
from results.schema import CellSummary

KEY = "predictor"  # in `resolved`
THROUGHPUT = "output_tokens_per_s_whole_run"  # windows differ from point to point: phases of the load would be compared
NO_VALUES = ("workload", "point", "unskewed")


@dataclass(frozen=True, slots=True)
class Belief:
    """`off`: what was skewed, by how much."""

    workload: str  # without the point
    point: str
    unskewed: bool
    off: Mapping[str, float]

    @classmethod
    def of(cls, cell: CellSummary) -> Belief | None:
        found = cell.resolved.get(KEY)
        if not isinstance(found, Mapping) or not isinstance(found.get("workload"), str):
            return None
        off = {str(key): float(value) for key, value in found.items() if key not in NO_VALUES}
        return cls(found["workload"], str(found.get("point", "")), bool(found.get("unskewed")), off)

    @property
    def words(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in self.off.items()) or "as it is"


@dataclass(frozen=True, slots=True)
class Skewed:
    """One engine at one point. `of_unskewed`: its throughput over that with the right beliefs; None without such."""

    group: Group
    belief: Belief
    of_unskewed: float | None


def skewed_groups(groups: Iterable[Group]) -> list[Skewed]:
    """Those of a sweep over beliefs, in their order; of every engine only what may be compared."""
    known = [(group, belief) for group in groups if (belief := _belief(group))]
    right = {(group.engine, belief.workload): group for group, belief in known if belief.unskewed}
    return [
        Skewed(group, belief, _ratio(group.comparable, right.get((group.engine, belief.workload))))
        for group, belief in known
    ]


def _belief(group: Group) -> Belief | None:
    return next((found for cell in group.ok if (found := Belief.of(cell))), None)


def _ratio(cells: Sequence[CellSummary], right: Group | None) -> float | None:
    ratios = [] if right is None else [*_ratios(cells, {cell.repeat: cell for cell in right.comparable})]
    return median(ratios) if ratios else None


def _ratios(cells: Sequence[CellSummary], right: Mapping[int, CellSummary]) -> Iterator[float]:
    for cell in cells:
        ours, theirs = (each and each.metrics.get(THROUGHPUT) for each in (cell, right.get(cell.repeat)))
        if ours and theirs and cell.label == right[cell.repeat].label:
            yield ours / theirs
