"""The roofline's constants from measured products: efficiencies, exponent and launch by least squares on log errors,
then, where they are to be met more closely, a table of ratios by tokens.

Peaks are given, never fitted. What an efficiency comes to therefore depends on the peak that it is a share of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.hardware import ByTokens, Gemm
from harness.op_tables import Point

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RATIO_POINTS = 16
FIXED_S = (1e-9, 1e-1)  # wide enough for a launch inside a graph, and for an emulated one in slow motion
EFFICIENCY = (1e-6, 10.0)  # a profiled CPU core reaches little of the peaks of the card that it stands for
EXPONENT = (1.0, 12.0)  # 1: memory and arithmetic in turn; 12: as good as the longer of the two
STARTS = tuple((exponent, share) for exponent in (1.5, 3.0) for share in (0.05, 0.5))  # the valley between them is flat


@dataclass(frozen=True, slots=True)
class Peaks:
    bandwidth_bytes_per_s: float
    flops: float
    bytes_per_parameter: int


@dataclass(frozen=True, slots=True)
class Samples:
    """Each point's seconds at both peaks, and what it took: machines can be put together."""

    memory_s: Floats
    compute_s: Floats
    seconds: Floats

    @staticmethod
    def of(points: Sequence[Point], peaks: Peaks) -> Samples:
        parameters = np.array([point.parameters for point in points], dtype=np.float64)
        tokens = np.array([point.tokens for point in points], dtype=np.float64)
        return Samples(
            parameters * peaks.bytes_per_parameter / peaks.bandwidth_bytes_per_s,
            2 * parameters * tokens / peaks.flops,
            np.array([point.seconds for point in points], dtype=np.float64),
        )

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        return Samples(
            np.concatenate([part.memory_s for part in parts]),
            np.concatenate([part.compute_s for part in parts]),
            np.concatenate([part.seconds for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """`gpu.gemm` and `gpu.op_fixed_s` of a catalogue entry."""

    gemm: Gemm
    fixed_s: float

    def streamed_s(self, samples: Samples) -> Floats:
        """The roofline's formula over many points; the ratios by tokens and the fixed part are left out."""
        gemm = self.gemm
        memory_s, compute_s = samples.memory_s / gemm.bandwidth_efficiency, samples.compute_s / gemm.compute_efficiency
        longer, shorter = np.maximum(memory_s, compute_s), np.minimum(memory_s, compute_s)
        power = gemm.exponent
        streamed: Floats = longer * (1 + (shorter / longer) ** power) ** (1 / power)
        return streamed


def fit_gemm(samples: Samples) -> Fit:
    """The points should be of matrices of several sizes: one size alone cannot tell a launch from the rest."""
    from scipy.optimize import least_squares

    bounds = np.log([EFFICIENCY, EFFICIENCY, EXPONENT, FIXED_S]).T
    reached = [float((part / samples.seconds).max()) for part in (samples.memory_s, samples.compute_s)]
    starts = [
        np.clip(np.log([*reached, exponent, share * samples.seconds.min()]), bounds[0] + 1e-6, bounds[1] - 1e-6)
        for exponent, share in STARTS
    ]
    tries = [least_squares(_log_errors, start, bounds=tuple(bounds), args=(samples,)) for start in starts]
    return _fit(min(tries, key=lambda found: float(found.cost)).x)


def _fit(logs: Floats) -> Fit:
    bandwidth, compute, exponent, fixed_s = map(float, np.exp(logs))
    return Fit(Gemm(bandwidth, compute, exponent), fixed_s)


def _log_errors(logs: Floats, samples: Samples) -> Floats:
    fit = _fit(logs)
    errors: Floats = np.log((fit.streamed_s(samples) + fit.fixed_s) / samples.seconds)
    return errors


def fit_ratios(layers: Sequence[Point], peaks: Peaks, fit: Fit, most: int = RATIO_POINTS) -> ByTokens:
    """Measured over formula at the `most` counts of tokens between which interpolation does best.

    Of whole layers, tokens rising: the roofline charges a layer's products one fixed part, so what the launches of the
    others take is in the ratios.
    """
    samples = Samples.of(layers, peaks)
    ratios = np.maximum(samples.seconds - fit.fixed_s, 0.1 * samples.seconds) / fit.streamed_s(samples)
    tokens = [point.tokens for point in layers]
    kept = best_knots(np.log(np.array(tokens, dtype=np.float64)), np.log(ratios), most)
    return ByTokens(tuple(tokens[index] for index in kept), tuple(round(float(ratios[index]), 4) for index in kept))


def best_knots(xs: Floats, ys: Floats, most: int) -> list[int]:
    """Which points to keep, both ends among them, so that straight lines between them miss the others by least squares.

    By dynamic programming: the best way to reach a point with so many knots extends the best way to an earlier one.
    """
    if most >= len(xs):
        return list(range(len(xs)))
    misses = _misses(xs, ys)
    best, came_from = misses[0], []
    for _ in range(most - 2):
        through = best[:, None] + misses
        came_from.append(through.argmin(axis=0))
        best = through.min(axis=0)
    knots = [len(xs) - 1]
    for back in reversed(came_from):
        knots.append(int(back[knots[-1]]))
    return sorted({0, *knots})


def _misses(xs: Floats, ys: Floats) -> Floats:
    """From each point to each later one: what a straight line between them misses. Standing still is no step back."""
    count = len(xs)
    misses = np.full((count, count), np.inf)
    np.fill_diagonal(misses, 0.0)
    for left in range(count):
        for right in range(left + 1, count):
            share = (xs[left + 1 : right] - xs[left]) / (xs[right] - xs[left])
            line = ys[left] + share * (ys[right] - ys[left])
            misses[left, right] = float(((ys[left + 1 : right] - line) ** 2).sum())
    return misses
