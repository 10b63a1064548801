"""Crossover maps: which engine wins where, by how much over gpu_only, and where uncertain constants do not decide it.

Ratios are formed draw by draw, so that what two engines share cancels. A place is decided only when the same engine
wins on the catalogue's machine and on every machine drawn from its ranges. Simulated throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engines.hardware import Hardware, uncertain
from harness.answers import Answer, Progress, Range, Values, ratios, simulate
from harness.claims import THROUGHPUT
from harness.cost_accuracy import cost_model_error
from harness.crossover_grid import BASELINE, Asked, Grid, Place, asked
from harness.errors import ConfigError

LABEL = "simulated"

Series = Mapping[str, Values]  # by engine


@dataclass(frozen=True, slots=True)
class Standing:
    """One engine at one place. `problem`: why it has no figure there."""

    engine: str
    tokens_per_s: Range | None
    gain: Range | None  # over the baseline
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MapCell:
    """`rivals`: who wins instead on some drawn machine; with any of them the place is not decided."""

    place: Place
    cpu_bandwidth_bytes_per_s: float
    winner: str  # empty where the baseline has no figure
    gain: Range | None
    rivals: tuple[str, ...]
    standings: tuple[Standing, ...]

    @property
    def decided(self) -> bool:
        return bool(self.winner) and not self.rivals

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        return {**found.pop("place"), **found, "rivals": list(self.rivals), "decided": self.decided}


@dataclass(frozen=True, slots=True)
class Constant:
    """One that was drawn from its range."""

    path: str
    value: float
    low: float
    high: float
    grade: str
    source: str


@dataclass(frozen=True, slots=True)
class Crossovers:
    grid: Grid
    draws: int
    holds_kv_tokens: int
    constants: tuple[Constant, ...]
    cells: tuple[MapCell, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "label": LABEL,
            "metric": THROUGHPUT,
            "baseline": BASELINE,
            "cost_model_error": cost_model_error(self.grid.hardware),
            "draws": self.draws,
            "holds_kv_tokens": self.holds_kv_tokens,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.grid).items()},
            "engines": list(dict.fromkeys(each.engine for cell in self.cells for each in cell.standings)),
            "constants": [asdict(constant) for constant in self.constants],
            "cells": [cell.to_json() for cell in self.cells],
        }


def crossovers(grid: Grid, draws: int, progress: Progress = lambda done, of: None) -> Crossovers:
    """ConfigError where names or lists are wrong, or nothing of the map can be simulated."""
    with TemporaryDirectory(prefix="harness-map-") as folder:
        question = asked(grid, Path(folder))
        answers = simulate([cell for _, cell in question.cells], draws, progress=progress)
    cells = tuple(_map_cells(question, answers))
    if not any(cell.winner for cell in cells):
        raise ConfigError(dict.fromkeys(each.problem for cell in cells for each in cell.standings if each.problem))
    return Crossovers(grid, draws, question.holds_kv_tokens, tuple(_constants(question.machine)), cells)


def _map_cells(question: Asked, answers: Sequence[Answer]) -> Iterable[MapCell]:
    rate = question.machine.cpu.read_bandwidth_bytes_per_s
    by_place: dict[Place, list[Answer]] = {}
    for (place, _), answer in zip(question.cells, answers, strict=True):
        by_place.setdefault(place, []).append(answer)
    for place, found in by_place.items():
        yield map_cell(place, rate * place.cpu_factor, found)


def map_cell(place: Place, cpu_bandwidth_bytes_per_s: float, answers: Sequence[Answer]) -> MapCell:
    series = {answer.cell.engine.name: answer.values(THROUGHPUT) for answer in answers if THROUGHPUT in answer.metrics}
    standings = tuple(_standing(answer, series) for answer in answers)
    if BASELINE not in series:
        return MapCell(place, cpu_bandwidth_bytes_per_s, "", None, (), standings)
    first, *drawn = winners(series)
    rivals = tuple(name for name in series if name in drawn and name != first)
    gain = next(each.gain for each in standings if each.engine == first)
    return MapCell(place, cpu_bandwidth_bytes_per_s, first, gain, rivals, standings)


def winners(series: Series) -> list[str]:
    """On each machine on which anybody runs. Whoever is listed first wins a tie, before all the baseline."""
    machines = len(next(iter(series.values())))
    rates = [{name: row[number] or 0.0 for name, row in series.items()} for number in range(machines)]
    return [max(each, key=lambda name: each[name]) for each in rates if any(each.values())]


def _standing(answer: Answer, series: Series) -> Standing:
    name = answer.cell.engine.name
    if name not in series:
        return Standing(name, None, None, answer.problem or "no figure")
    base = series.get(BASELINE)
    gain = None if base is None else Range.of(ratios(series[name], base))
    return Standing(name, Range.of(series[name]), gain)


def _constants(machine: Hardware) -> Iterable[Constant]:
    for path, source in uncertain(machine).items():
        assert source.low is not None
        assert source.high is not None
        value = machine.at(path)
        assert isinstance(value, int | float)
        yield Constant(path, float(value), source.low, source.high, source.grade.value, source.text)
