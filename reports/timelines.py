"""The steps of a cell, reduced: how full the engine was over time, and how long each unit of the machine worked.

Steps stream by; a series has a fixed number of bins however long the run was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from results.memory_use import TIERS, MemoryUse
from results.store import iter_steps

Floats = npt.NDArray[np.float64]

BINS = 160

SERIES = ("running", "accel_blocks_used", "host_blocks_used")
UNITS = ("gpu", "cpu", "h2d", "d2h", "disk")

_COLUMNS = ("started_s", "ended_s", "scheduler_s", *SERIES, *(f"{unit}_busy_s" for unit in UNITS))


@dataclass(frozen=True, slots=True)
class Busy:
    """Seconds of one or several cells. `in_steps_s` is time inside steps; the rest of `wall_s` is between them."""

    wall_s: float
    in_steps_s: float
    scheduler_s: float
    units_s: Mapping[str, float]

    def __add__(self, other: Busy) -> Busy:
        return Busy(
            self.wall_s + other.wall_s,
            self.in_steps_s + other.in_steps_s,
            self.scheduler_s + other.scheduler_s,
            {unit: self.units_s[unit] + other.units_s[unit] for unit in UNITS},
        )

    def share(self, unit: str) -> tuple[float, float, float]:
        """Of the serving time: busy, bubble (idle inside a step), between steps. They add up to one."""
        if self.wall_s <= 0:
            return 0.0, 0.0, 1.0
        busy = min(self.units_s[unit] / self.wall_s, 1.0)
        in_steps = max(min(self.in_steps_s / self.wall_s, 1.0), busy)
        return busy, in_steps - busy, 1.0 - in_steps


@dataclass(frozen=True, slots=True)
class Timeline:
    """One cell: each series averaged over time bins of `bin_s` seconds, from the start of serving."""

    bin_s: float
    values: Mapping[str, Floats]
    busy: Busy

    def with_memory(self, memory: MemoryUse | None) -> Timeline:
        """Bytes per tier beside the blocks, `accel_bytes` and so on, where the engine says what those take."""
        if memory is None:
            return self
        accel, host = self.values["accel_blocks_used"], self.values["host_blocks_used"]
        held = {f"{tier}_bytes": memory.on(tier, accel, host) for tier in TIERS}
        return replace(self, values={**self.values, **held})

    @property
    def time_s(self) -> Floats:
        return np.linspace(0.5, BINS - 0.5, BINS, dtype=np.float64) * self.bin_s


def read_timeline(cell_dir: Path) -> Timeline | None:
    """Two passes over the file, because the bins depend on where it ends; None when the cell took no step."""
    end_s = _last_end(cell_dir)
    if end_s <= 0:
        return None
    weights = np.zeros(BINS)
    sums = {name: np.zeros(BINS) for name in SERIES}
    busy = Busy(0.0, 0.0, 0.0, dict.fromkeys(UNITS, 0.0))
    for batch in iter_steps(cell_dir, _COLUMNS):
        columns = {name: batch[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in _COLUMNS}
        middle = (columns["started_s"] + columns["ended_s"]) / 2
        lasted = np.maximum(columns["ended_s"] - columns["started_s"], 0.0)
        index = np.clip((middle / end_s * BINS).astype(np.int64), 0, BINS - 1)
        weight = np.maximum(lasted, 1e-9)
        weights += np.bincount(index, weight, minlength=BINS)
        for name in SERIES:
            sums[name] += np.bincount(index, weight * columns[name], minlength=BINS)
        units = {unit: float(columns[f"{unit}_busy_s"].sum()) for unit in UNITS}
        busy += Busy(0.0, float(lasted.sum()), float(columns["scheduler_s"].sum()), units)
    busy += Busy(end_s, 0.0, 0.0, dict.fromkeys(UNITS, 0.0))
    return Timeline(end_s / BINS, {name: _means(sums[name], weights) for name in SERIES}, busy)


def _last_end(cell_dir: Path) -> float:
    last = 0.0
    for batch in iter_steps(cell_dir, ["ended_s"]):
        last = max(last, float(batch["ended_s"].to_numpy(zero_copy_only=False).max(initial=0.0)))
    return last


def _means(sums: Floats, weights: Floats) -> Floats:
    """A bin without a step keeps the value before it: nothing changed there. Before the first step nothing ran."""
    filled = weights > 0
    latest = np.maximum.accumulate(np.where(filled, np.arange(BINS), -1))
    means = np.divide(sums, weights, out=np.zeros(BINS), where=filled)
    return np.where(latest >= 0, means[latest], 0.0)
