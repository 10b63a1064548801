"""What engines would do on a machine that is simulated: their figures, and how far they depend on what is uncertain.

Many cells at once, on as many cores as there are. Not a run: nothing is recorded, and one seed is drawn once. Claims,
recommendations and maps are made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context

from harness.build import check
from harness.environment import allowed_cores
from harness.errors import ConfigError
from harness.lean import figures
from harness.plan import CellSpec

Figures = Mapping[str, float]
Values = Sequence[float | None]  # on the entry's own machine, then on the drawn ones; None where nothing ran
Progress = Callable[[int, int], None]  # done, of


@dataclass(frozen=True, slots=True)
class Range:
    """`low` and `high`: over the machines that the catalogue entry may as well describe, its own among them."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Values) -> Range | None:
        """None where there is no value on the entry's own machine."""
        there = [value for value in values if value is not None]
        return None if values[0] is None else cls(values[0], min(there), max(there))


def ratios(ours: Values, theirs: Values) -> list[float | None]:
    """Machine by machine."""
    return [a / b if a is not None and b else None for a, b in zip(ours, theirs, strict=True)]


@dataclass(frozen=True, slots=True)
class Answer:
    """One engine on one workload. `draws`: the same on each drawn machine, nothing where it could not run there."""

    cell: CellSpec
    metrics: Figures
    draws: tuple[Figures, ...] = ()
    problem: str = ""  # why there are no figures

    def values(self, metric: str) -> tuple[float | None, ...]:
        """The entry's own machine first, then the draws."""
        return tuple(found.get(metric) for found in (self.metrics, *self.draws))


def simulate(
    cells: Sequence[CellSpec], draws: int, *, of_steps: bool = False, progress: Progress = lambda done, of: None
) -> list[Answer]:
    """In the order of the cells. Repeats beyond the first would say nothing new about a machine and are left out."""
    cells = [replace(cell, draws=draws) for cell in cells if cell.repeat == 0]
    specs = [replace(cell, draw=draw) for cell in cells for draw in range(draws + 1)]
    found = _all(specs, of_steps, progress)
    machines = [found[at : at + draws + 1] for at in range(0, len(found), draws + 1)]
    return [
        Answer(cell, own.figures, tuple(each.figures for each in drawn), own.problem)
        for cell, (own, *drawn) in zip(cells, machines, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Found:
    figures: Figures
    problem: str = ""


def _all(specs: Sequence[CellSpec], of_steps: bool, progress: Progress) -> list[_Found]:
    workers = min(len(specs), len(allowed_cores()))
    if workers <= 1:
        return [*_counted((_figures(spec, of_steps) for spec in specs), len(specs), progress)]
    found: dict[int, _Found] = {}
    # Spawned, not forked: the parent may have threads, and a child must not inherit half of one.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_figures, spec, of_steps): place for place, spec in enumerate(specs)}
        for done, future in enumerate(as_completed(running), 1):
            found[running[future]] = future.result()
            progress(done, len(specs))
    return [found[place] for place in range(len(specs))]


def _counted(results: Iterable[_Found], of: int, progress: Progress) -> Iterable[_Found]:
    for done, result in enumerate(results, 1):
        progress(done, of)
        yield result


def _figures(spec: CellSpec, of_steps: bool) -> _Found:
    """A problem where this machine cannot hold the model: a drawn one may have a little less memory."""
    if problems := check(spec):
        return _Found({}, "; ".join(problems))
    try:
        return _Found(figures(spec, of_steps=of_steps).metrics)
    except ConfigError as error:
        return _Found({}, str(error))
