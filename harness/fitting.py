"""The roofline's constants from measured products: efficiencies, exponent and launch by least squares on log errors.

Peaks are given, never fitted. What an efficiency comes to therefore depends on the peak that it is a share of. Not
here: the tables of ratios by which single products are met more closely (fitting_ratios.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.core.products import in_tiles
from engines.hardware import Gemm
from harness.op_tables import Point

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_FIXED_S = 1e-9
MOST_FIXED = 0.9  # of the shortest that was measured: no product is all launch
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
    products: Floats  # each has a fixed part

    @staticmethod
    def of(points: Sequence[Point], peaks: Peaks, tile_rows: int = 1) -> Samples:
        parameters = np.array([point.parameters for point in points], dtype=np.float64)
        tokens = np.array([in_tiles(point.tokens, tile_rows) for point in points], dtype=np.float64)
        return Samples(
            parameters * peaks.bytes_per_parameter / peaks.bandwidth_bytes_per_s,
            2 * parameters * tokens / peaks.flops,
            np.array([point.seconds for point in points], dtype=np.float64),
            np.array([point.products for point in points], dtype=np.float64),
        )

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        return Samples(
            np.concatenate([part.memory_s for part in parts]),
            np.concatenate([part.compute_s for part in parts]),
            np.concatenate([part.seconds for part in parts]),
            np.concatenate([part.products for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """`gpu.gemm` and `gpu.op_fixed_s` of a catalogue entry. Samples have to be in its tiles."""

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

    def seconds(self, samples: Samples) -> Floats:
        whole: Floats = self.streamed_s(samples) + self.fixed_s * samples.products
        return whole


def fit_gemm(samples: Samples) -> Fit:
    """The points should be of matrices of several sizes: one size alone cannot tell a launch from the rest."""
    from scipy.optimize import least_squares

    shortest_s = float((samples.seconds / samples.products).min())
    bounds = np.log([EFFICIENCY, EFFICIENCY, EXPONENT, (LEAST_FIXED_S, MOST_FIXED * shortest_s)]).T
    reached = [float((part / samples.seconds).max()) for part in (samples.memory_s, samples.compute_s)]
    starts = [
        np.clip(np.log([*reached, exponent, share * shortest_s]), bounds[0] + 1e-6, bounds[1] - 1e-6)
        for exponent, share in STARTS
    ]
    tries = [least_squares(_log_errors, start, bounds=tuple(bounds), args=(samples,)) for start in starts]
    return _fit(min(tries, key=lambda found: float(found.cost)).x)


def _fit(logs: Floats) -> Fit:
    bandwidth, compute, exponent, fixed_s = map(float, np.exp(logs))
    return Fit(Gemm(bandwidth, compute, exponent), fixed_s)


def _log_errors(logs: Floats, samples: Samples) -> Floats:
    fit = _fit(logs)
    errors: Floats = np.log(fit.seconds(samples) / samples.seconds)
    return errors
