"""Two runs of one workload, compared by their batch size over time: two engines, or one and its simulation.

Time is taken as a share of each run, so that runs of different length can be laid over each other; how their lengths
compare is another figure. Exact sums over piecewise constant curves: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepSeries:
    """A row per step, in order: when it began and ended, how many requests it worked on."""

    started_s: Sequence[float]
    ended_s: Sequence[float]
    batch: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.started_s) == len(self.ended_s) == len(self.batch) > 0:
            raise ValueError("a series needs at least one step, and as many starts as ends and batch sizes")
        if not self.ended_s[-1] > self.started_s[0]:
            raise ValueError("a series has to take some time")


def series_of(steps: pd.DataFrame) -> StepSeries:
    """From the columns of steps.parquet: whoever has a row in a step is in its batch."""
    batch = steps["decode_rows"] + steps["prefill_rows"]
    return StepSeries(steps["started_s"].tolist(), steps["ended_s"].tolist(), batch.tolist())


@dataclass(frozen=True, slots=True)
class Curve:
    """`values[i]` from `edges[i]` to `edges[i + 1]`, shares of the run from 0 to 1."""

    edges: FloatArray
    values: FloatArray

    def at(self, shares: FloatArray) -> FloatArray:
        return self.values[np.clip(np.searchsorted(self.edges, shares, side="right") - 1, 0, len(self.values) - 1)]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`correlation` is None where one of the curves is flat."""

    mean_a: float  # requests per step, weighted by time
    mean_b: float
    mean_abs_difference: float
    correlation: float | None

    @property
    def relative_difference(self) -> float:
        """Of the mean batch of a."""
        return self.mean_abs_difference / self.mean_a if self.mean_a else 0.0


def batch_curve(series: StepSeries) -> Curve:
    """From the first start to the last end. A batch lasts until the next step begins, because the scheduler works on it
    in between; a gap longer than any step means that nobody was there.
    """
    started, ended = np.asarray(series.started_s, float), np.asarray(series.ended_s, float)
    followed = np.append(started[1:], ended[-1])
    idle = followed - ended > (ended - started).max()
    edges = np.column_stack([started, np.where(idle, ended, followed)]).ravel()
    values = np.column_stack([np.asarray(series.batch, float), np.zeros(len(started))]).ravel()
    edges = np.append(edges, ended[-1])
    kept = np.diff(edges) > 0
    length_s = ended[-1] - started[0]
    return Curve((np.append(edges[:-1][kept], ended[-1]) - started[0]) / length_s, values[kept])


def compare(a: StepSeries, b: StepSeries) -> Agreement:
    """Time-weighted, over all moments at which either batch changes."""
    curve_a, curve_b = batch_curve(a), batch_curve(b)
    edges = np.union1d(curve_a.edges, curve_b.edges)
    weights, middles = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    values_a, values_b = curve_a.at(middles), curve_b.at(middles)
    mean_a, mean_b = np.average(values_a, weights=weights), np.average(values_b, weights=weights)
    spread_a, spread_b = values_a - mean_a, values_b - mean_b
    variances = np.average(spread_a**2, weights=weights) * np.average(spread_b**2, weights=weights)
    covariance = np.average(spread_a * spread_b, weights=weights)
    return Agreement(
        mean_a=float(mean_a),
        mean_b=float(mean_b),
        mean_abs_difference=float(np.average(np.abs(values_a - values_b), weights=weights)),
        correlation=float(covariance / np.sqrt(variances)) if variances > 0 else None,
    )
