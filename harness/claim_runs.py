"""What our engines say to a claim where it is measured: runs with records on the GPU that is here, and an interval over
their repeats. Everything else is simulated (claim_points.py). Nothing here knows what was claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.answers import Progress, Values
from harness.claim_points import Found, Point, found_for, series
from harness.claim_testbeds import ClaimBackend, Setup, Testbed, beds_of, runs_for
from harness.claims import Claim, Trial
from harness.experiment import Experiment
from harness.progress import Watcher
from harness.runner import run_experiment
from harness.stats import MIN_PAIRS, paired_interval
from results.query import Group
from results.schema import CellSummary

Cells = Sequence[CellSummary]


def found_where_possible(
    claims: Sequence[Claim], backend: ClaimBackend, draws: int, out_dir: Path, watcher: Watcher, progress: Progress
) -> dict[str, Found]:
    """By the claim's id; those that nobody can test have none."""
    beds = beds_of(claims, backend)
    simulated = [claim for claim in claims if claim.id in beds and beds[claim.id].measured is False]
    tests = {claim.id: claim.test for claim in claims if claim.test is not None and beds[claim.id].measured}
    found = {name: _not_here(bed) for name, bed in beds.items() if bed.measured is None}
    found |= found_for(simulated, draws, progress)
    ran = _ran(runs_for([*tests.values()]), out_dir, watcher) if tests else {}
    return found | {name: measured(test, ran[test.config, test.set]) for name, test in tests.items()}


def _not_here(bed: Testbed) -> Found:
    return Found((), f"only what this machine's GPU can measure was asked for: {bed.why}")


def _ran(runs: Mapping[Setup, Experiment], out_dir: Path, watcher: Watcher) -> dict[Setup, Cells]:
    cells: dict[Setup, Cells] = {}
    for setup, experiment in runs.items():
        outcome = run_experiment(experiment, out_dir, watcher, command="harness claims")
        if outcome.interrupted:
            raise KeyboardInterrupt
        cells[setup] = outcome.summary.cells
    return cells


def measured(test: Trial, cells: Cells) -> Found:
    """A point for each workload: the ratio of each repeat, and a 95 % interval over them."""
    groups: dict[tuple[str, str], list[CellSummary]] = {}
    for cell in cells:
        if cell.engine in test.engines and test.asks(cell.workload):
            groups.setdefault((cell.workload, cell.engine), []).append(cell)
    comparable = {at: Group(at[1], at[0], tuple(found)).comparable for at, found in groups.items()}
    problems = [
        f"{at[1]} on {at[0]}: {len(found)} of {len(groups[at])} repeats are good, {MIN_PAIRS} are needed"
        for at, found in comparable.items()
        if len(found) < MIN_PAIRS
    ]
    if problems:
        return Found((), "; ".join(problems), "measured")
    repeats = sorted({cell.repeat for cell in cells})

    def of(workload: str, engine: str) -> Values:
        by_repeat = {cell.repeat: cell.metrics.get(test.metric) for cell in comparable.get((workload, engine), ())}
        return tuple(by_repeat.get(repeat) for repeat in repeats)

    workloads = list(dict.fromkeys(workload for workload, _ in groups))
    points = []
    for name, values in series(test, workloads, of):
        there = [value for value in values if value]
        if len(there) < MIN_PAIRS:
            return Found((), f"{test.metric} on {name}: {len(there)} pairs, {MIN_PAIRS} are needed", "measured")
        interval = paired_interval(there)
        points.append(Point(name, interval.value, interval.low, interval.high))
    return Found(tuple(points), "" if points else "the experiment has none of the workloads", "measured")
