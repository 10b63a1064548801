"""What an engine's predictor said a step would take, against what it took: counted into a grid as the steps stream by.

Both axes are in bins of equal ratio, so a point of the grid is as near to the diagonal as the step was, in percent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from reports.latencies import Distribution
from results.store import iter_steps

Floats = npt.NDArray[np.float64]

_SHORTEST_S = 1e-6
_BINS_PER_DECADE = 160
_BINS = 11 * _BINS_PER_DECADE
MOST_POINTS = 250

_COLUMNS = ("started_s", "ended_s", "predicted_s")


@dataclass(frozen=True, slots=True)
class Points:
    """Steps of about the same observed and predicted time, and how many they are."""

    observed_s: Floats
    predicted_s: Floats
    steps: npt.NDArray[np.int64]


@dataclass(slots=True)
class Predictions:
    """The steps of one engine on one workload, all repeats pooled. `steps` counts also those without a prediction."""

    steps: int = 0
    predicted: int = 0
    grid: Counter[tuple[int, int]] = field(default_factory=Counter)
    errors: Distribution = field(default_factory=Distribution)  # |predicted - observed| / observed

    def add_cell(self, cell_dir: Path) -> None:
        for batch in iter_steps(cell_dir, _COLUMNS):
            self.steps += batch.num_rows
            batch = batch.filter(pc.is_valid(batch["predicted_s"]))
            started, ended, predicted = (batch[name].to_numpy(zero_copy_only=False) for name in _COLUMNS)
            self._add(ended - started, predicted)

    def _add(self, observed: Floats, predicted: Floats) -> None:
        usable = (observed > 0) & np.isfinite(predicted)
        observed, predicted = observed[usable], predicted[usable]
        self.predicted += len(observed)
        self.errors.add(np.abs(predicted - observed) / observed)
        places, counts = np.unique(np.stack([_bin(observed), _bin(predicted)], axis=1), axis=0, return_counts=True)
        for (across, up), count in zip(places.tolist(), counts.tolist(), strict=True):
            self.grid[across, up] += count

    @property
    def median_error(self) -> float | None:
        curve = self.errors.curve()
        return None if curve is None else curve.percentile(0.5)

    def points(self, most: int = MOST_POINTS) -> Points:
        """The filled places of the grid; a coarser grid when there are too many to draw."""
        grid, width = self.grid, 1
        while len(grid) > most:
            width *= 2
            coarser: Counter[tuple[int, int]] = Counter()
            for (across, up), count in self.grid.items():
                coarser[across // width, up // width] += count
            grid = coarser
        places = np.array(sorted(grid), dtype=np.float64).reshape(-1, 2)
        middles = _SHORTEST_S * 10 ** ((places + 0.5) * width / _BINS_PER_DECADE)
        return Points(middles[:, 0], middles[:, 1], np.array([grid[key] for key in sorted(grid)], dtype=np.int64))


def _bin(seconds: Floats) -> npt.NDArray[np.int64]:
    position = np.log10(np.maximum(seconds, _SHORTEST_S) / _SHORTEST_S) * _BINS_PER_DECADE
    return np.clip(position.astype(np.int64), 0, _BINS - 1)
