"""What each scheduler loses where its predictor was made wrong on purpose: a row for each point of that sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports import labels
from reports.drawing import SERIES
from reports.rendering import Section, render
from reports.values import ABSENT, figure
from results.beliefs import THROUGHPUT, Skewed, skewed_groups
from results.query import Run

RATIO = "prediction_ratio"


@dataclass(frozen=True, slots=True)
class Row:
    """One engine at one point: medians of its repeats."""

    engine: str
    slot: int
    believed: str
    throughput: str
    of_unskewed: str
    predicted: str  # over observed


@dataclass(frozen=True, slots=True)
class Table:
    workload: str
    label: str
    rows: tuple[Row, ...]


def build(run: Run) -> Section | None:
    """None where every engine believed what is."""
    found = skewed_groups(run.groups())
    workloads = dict.fromkeys(each.belief.workload for each in found)
    tables = [
        _table(run, workload, [each for each in found if each.belief.workload == workload]) for workload in workloads
    ]
    return Section("beliefs", "Prediction error", render("beliefs.html", tables=tables)) if tables else None


def _table(run: Run, workload: str, found: Sequence[Skewed]) -> Table:
    by_engine = sorted(found, key=lambda each: run.engines.index(each.group.engine))
    label = labels.of(cell for each in found for cell in each.group.ok)
    return Table(workload, label, tuple(_row(run, each) for each in by_engine))


def _row(run: Run, each: Skewed) -> Row:
    throughput, predicted = each.group.spread(THROUGHPUT), each.group.spread(RATIO)
    return Row(
        each.group.engine,
        run.engines.index(each.group.engine) % SERIES,
        each.belief.words,
        ABSENT if throughput is None else figure(throughput.median),
        ABSENT if each.of_unskewed is None else f"{each.of_unskewed:.3f}",
        ABSENT if predicted is None else f"{predicted.median:.3f}",
    )
