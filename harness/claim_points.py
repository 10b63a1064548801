"""What our engines say to a claim on a simulated machine: a number for each workload of its test, and the band that
uncertain constants leave. Measuring is claim_runs.py's.

One simulation serves every claim that asks about it. Nothing here knows what was claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engines.model.config import load_config
from harness.answers import Answer, Progress, Range, Values, ratios, simulate
from harness.claims import Claim, Trial
from harness.config import load_experiment
from harness.costs import DTYPE_BYTES
from harness.errors import ConfigError
from harness.plan import CellSpec, expand


@dataclass(frozen=True, slots=True)
class Point:
    """`low` and `high`: over the machines that the catalogue entry may as well describe, its own among them; of a
    measurement, its 95 % interval.
    """

    workload: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Found:
    """`problem`: why there is no point."""

    points: tuple[Point, ...]
    problem: str = ""
    label: str = "simulated"


Place = tuple[str, tuple[str, ...], str, str]  # config, what is set, workload, engine


def found_for(claims: Sequence[Claim], draws: int, progress: Progress = lambda done, of: None) -> dict[str, Found]:
    """By the claim's id; those that nobody can test have none."""
    tested = {claim.id: claim.test for claim in claims if claim.test is not None}
    answers = _answers(tested.values(), draws, progress)
    return {name: _found(test, answers) for name, test in tested.items()}


def _answers(tests: Iterable[Trial], draws: int, progress: Progress) -> dict[Place, Answer]:
    """All that is asked about, once, on as many cores as there are."""
    cells: dict[Place, CellSpec] = {}
    steps: dict[Place, bool] = {}
    for test in tests:
        for place, cell in _cells(test) if test.weights is None else ():
            cells[place] = cell
            steps[place] = steps.get(place, False) or test.metric.startswith("load_")
    answers: dict[Place, Answer] = {}
    for of_steps in (False, True):
        places = [place for place in cells if steps[place] is of_steps]
        found = simulate([cells[place] for place in places], draws, of_steps=of_steps, progress=progress)
        answers |= dict(zip(places, found, strict=True))
    return answers


def _cells(test: Trial) -> Iterable[tuple[Place, CellSpec]]:
    for cell in expand(load_experiment(test.config, ["backend=sim", "measure.repeats=1", *test.set]), "sim"):
        if cell.engine.name in test.engines and test.asks(cell.workload.name):
            yield (test.config, test.set, cell.workload.name, cell.engine.name), replace(cell, draws=0)


def _found(test: Trial, answers: Mapping[Place, Answer]) -> Found:
    if test.weights is not None:
        size_gib = load_config(test.weights).weight_bytes(DTYPE_BYTES["float16"]) / 2**30
        return Found((Point(f"the weights of {test.weights}, GiB", size_gib, size_gib, size_gib),))
    mine = {
        (workload, engine): answer
        for (config, sets, workload, engine), answer in answers.items()
        if (config, sets) == (test.config, test.set) and engine in test.engines and test.asks(workload)
    }
    problems = [f"{engine} on {workload}: {a.problem}" for (workload, engine), a in mine.items() if a.problem]
    if problems:
        return Found((), "; ".join(dict.fromkeys(problems)))
    workloads = list(dict.fromkeys(workload for workload, _ in mine))
    points = []
    for workload, values in series(test, workloads, lambda at, engine: mine[at, engine].values(test.metric)):
        found = Range.of(values)
        if found is None:
            return Found((), f"{test.metric} on {workload} is not there")
        points.append(Point(workload, found.value, found.low, found.high))
    return Found(tuple(points), "" if points else "the experiment has none of the workloads")


def series(test: Trial, workloads: Sequence[str], of: Callable[[str, str], Values]) -> Iterable[tuple[str, Values]]:
    """The numbers that a test asks for, by workload: machine by machine, or repeat by repeat, as `of` has them."""
    if test.trend is not None:
        at, engine = test.trend, test.trend.engine
        yield f"{at.of} / {at.over}", ratios(of(at.of, engine), of(at.over, engine))
    for workload in workloads if test.trend is None else ():
        if test.ratio is None:
            yield workload, of(workload, str(test.figure))
        else:
            rivals = [of(workload, engine) for engine in test.ratio.theirs]
            best = tuple(max((v for v in each if v is not None), default=None) for each in zip(*rivals, strict=True))
            yield workload, ratios(of(workload, test.ratio.ours), best)


def unknown_names(claims: Iterable[Claim]) -> list[str]:
    """Engines and workloads that a test names and its experiment does not have."""
    problems = []
    for claim in claims:
        if claim.test is None or claim.test.weights is not None:
            continue
        try:
            cells = expand(load_experiment(claim.test.config, ["backend=sim", *claim.test.set]), "sim")
        except ConfigError as error:
            problems += [f"{claim.id}: {line}" for line in error.problems]
            continue
        engines, workloads = {cell.engine.name for cell in cells}, {cell.workload.name for cell in cells}
        named = {*claim.test.workloads, *((claim.test.trend.over, claim.test.trend.of) if claim.test.trend else ())}
        problems += [f"{claim.id}: no engine {name}" for name in sorted(claim.test.engines - engines)]
        problems += [f"{claim.id}: no workload {name}" for name in sorted(named - workloads)]
    return problems
