"""What a set of figures allows one to say: intervals, and streams too long to keep.

Numbers in, numbers out: no files, no clocks, nothing of engines. All intervals are 95 %. The sentences that follow from
them are in verdicts.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special  # not scipy.stats: every cell imports this, and that takes half a second

FloatArray = npt.NDArray[np.float64]

PERCENTILES = (50, 90, 95, 99)
MIN_PAIRS = 5  # a t-interval holds with fewer (a bootstrap covers only 74-83 % then), but is too wide to act on
EXACT_LIMIT = 1 << 18  # values kept as they are (2 MiB); past it a stream is counted in bins
BIN_RATIO = 1.01  # a bin's middle is within (1.01 - 1) / (1.01 + 1) = 0.498 % of everything in it
SMALLEST, LARGEST = 1e-9, 1e9  # the histogram's range; what is smaller counts as 0
TIME_BINS = 1 << 16


@dataclass(frozen=True, slots=True)
class Interval:
    value: float
    low: float
    high: float


# --- percentiles of one sample ----------------------------------------------------------------------------------------


def order_ranks(count: int, quantile: float) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that enclose the quantile with 95 %, tails equal; None if there are none.

    How many values lie below the true quantile is binomial whatever their distribution: only independence is assumed.
    """
    low, high = _binomial_quantile(0.025, count, quantile), _binomial_quantile(0.975, count, quantile) + 1
    return (low, high) if low >= 1 and high <= count else None


def _binomial_quantile(share: float, count: int, quantile: float) -> int:
    """The smallest k with P(at most k of `count` lie below the quantile) >= share."""
    k = max(0, math.ceil(special.bdtrik(share, count, quantile)))
    return k - 1 if k and special.bdtr(k - 1, count, quantile) >= share else k  # the inverse is rounded


def observations_needed(percent: int) -> int:
    """The smallest sample for which order_ranks() exists: 6, 36, 72, 368 for p50, p90, p95, p99."""
    return math.ceil(math.log(0.025) / math.log(percent / 100))


class Spread:
    """Mean, percentiles and maximum of a stream of values >= 0, in bounded memory, mergeable.

    Up to `exact_limit` values are kept and percentiles are exact (numpy's linear definition). Past that the stream is
    counted in bins of ratio 1.01: a percentile is within 0.5 % of the exact one; mean and maximum stay exact. NaN is
    no value.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT) -> None:
        self.count = 0
        self.total = 0.0
        self.maximum = -math.inf
        self._limit = exact_limit
        self._kept: FloatArray = np.empty(64)
        self._bins: npt.NDArray[np.int64] | None = None  # bin 0 holds what is below SMALLEST

    def add(self, values: FloatArray) -> None:
        values = values[~np.isnan(values)]
        if not values.size:
            return
        before, self.count = self.count, self.count + values.size
        self.total += float(values.sum())
        self.maximum = max(self.maximum, float(values.max()))
        if self._bins is None and self.count <= self._limit:
            self._kept = _room_for(self._kept, self.count)
            self._kept[before : self.count] = values
            return
        if self._bins is None:
            self._bins = _histogram(self._kept[:before])
            self._kept = np.empty(0)
        self._bins += _histogram(values)

    def merge(self, other: Spread) -> None:
        if other._bins is None:
            self.add(other._kept[: other.count])
            return
        mine = _histogram(self._kept[: self.count]) if self._bins is None else self._bins
        self._bins, self._kept = mine + other._bins, np.empty(0)
        self.count, self.total = self.count + other.count, self.total + other.total
        self.maximum = max(self.maximum, other.maximum)

    def percentiles(self, observations: int | None = None) -> dict[int, Interval]:
        """Those that have an interval. `observations`: how many values are independent, where that is below `count`."""
        size = max(1, min(self.count, self.count if observations is None else observations))
        ordered = _Ordered(self._kept[: self.count], self._bins, self.maximum)
        found = {}
        for percent in PERCENTILES:
            ranks = order_ranks(size, percent / 100)
            if ranks is not None:
                low, high = ranks[0] * self.count // size, -(-ranks[1] * self.count // size)
                found[percent] = Interval(ordered.quantile(percent / 100), ordered.at(low), ordered.at(high))
        return found


class _Ordered:
    """The order statistics of a Spread, from its values or from its bins."""

    def __init__(self, kept: FloatArray, bins: npt.NDArray[np.int64] | None, maximum: float) -> None:
        self._values = np.sort(kept)
        self._cumulative = None if bins is None else np.cumsum(bins)
        self._maximum = maximum

    def at(self, rank: int) -> float:
        if self._cumulative is None:
            return float(self._values[rank - 1])
        index = int(np.searchsorted(self._cumulative, rank))
        return min(self._maximum, SMALLEST * BIN_RATIO**index * 2 / (1 + BIN_RATIO)) if index else 0.0

    def quantile(self, quantile: float) -> float:
        size = self._values.size if self._cumulative is None else int(self._cumulative[-1])
        below, share = divmod(quantile * (size - 1), 1.0)
        low, high = self.at(int(below) + 1), self.at(min(int(below) + 2, size))
        return low + share * (high - low)


def _histogram(values: FloatArray) -> npt.NDArray[np.int64]:
    size = math.ceil(math.log(LARGEST / SMALLEST) / math.log(BIN_RATIO)) + 1
    index = np.ceil(np.log(np.clip(values, SMALLEST, LARGEST) / SMALLEST) / math.log(BIN_RATIO)).astype(np.int64)
    return np.bincount(index, minlength=size)


def _room_for(kept: FloatArray, size: int) -> FloatArray:
    """The same array, at least `size` long: it doubles, so that feeding one value at a time stays linear."""
    return kept if size <= kept.size else np.concatenate([kept, np.empty(max(size, 2 * kept.size) - kept.size)])


class TimeCount:
    """How much came in between two moments, in bounded memory: exact up to a limit, then in 65,536 bins over the run.

    A bin is at most 1/32768 of the run; a boundary inside a bin takes its share of it.
    """

    def __init__(self, exact_limit: int = EXACT_LIMIT) -> None:
        self.total = 0.0
        self._limit = exact_limit
        self._size = 0
        self._times: FloatArray = np.empty(64)
        self._amounts: FloatArray = np.empty(64)
        self._bins: FloatArray | None = None
        self._width_s = 2.0**-20

    def add(self, times_s: FloatArray, amounts: FloatArray | None = None) -> None:
        amounts = np.ones(times_s.size) if amounts is None else amounts
        self.total += float(amounts.sum())
        if self._bins is None and self._size + times_s.size <= self._limit:
            before, self._size = self._size, self._size + times_s.size
            self._times, self._amounts = _room_for(self._times, self._size), _room_for(self._amounts, self._size)
            self._times[before : self._size], self._amounts[before : self._size] = times_s, amounts
            return
        if self._bins is None:
            self._bins = np.zeros(TIME_BINS)
            self._bin(self._times[: self._size], self._amounts[: self._size])
            self._times = self._amounts = np.empty(0)
        self._bin(times_s, amounts)

    def between(self, start_s: float, end_s: float) -> float:
        """What came in after `start_s`, up to and including `end_s`."""
        if self._bins is None:
            times = self._times[: self._size]
            return float(self._amounts[: self._size][(times > start_s) & (times <= end_s)].sum())
        edges = np.arange(TIME_BINS + 1) * self._width_s
        low, high = np.interp([start_s, end_s], edges, np.concatenate([[0.0], np.cumsum(self._bins)]))
        return float(high - low)

    def _bin(self, times_s: FloatArray, amounts: FloatArray) -> None:
        assert self._bins is not None
        while times_s.size and times_s.max() >= TIME_BINS * self._width_s:
            self._bins = np.concatenate([self._bins.reshape(-1, 2).sum(axis=1), np.zeros(TIME_BINS // 2)])
            self._width_s *= 2
        index = np.maximum(times_s / self._width_s, 0).astype(np.int64)
        self._bins += np.bincount(index, weights=amounts, minlength=TIME_BINS)


def bootstrap_interval(
    values: FloatArray, statistic: Callable[[FloatArray], float], *, seed: int, resamples: int = 1000
) -> Interval:
    """Percentile bootstrap over the requests of one run: `values` has one row per request, redrawn as a whole."""
    if not len(values):
        raise ValueError("a bootstrap needs at least one request")
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(statistic(values)), float(low), float(high))


# --- pairs of runs ----------------------------------------------------------------------------------------------------


def paired_interval(ratios: Sequence[float]) -> Interval:
    """Geometric mean of paired ratios with Student's t on their logarithms; needs two pairs."""
    logs = np.log(checked(ratios))
    if logs.size < 2:
        raise ValueError(f"an interval needs at least 2 pairs, there are {logs.size}")
    centre = float(logs.mean())
    reach = float(special.stdtrit(logs.size - 1, 0.975) * logs.std(ddof=1) / math.sqrt(logs.size))
    return Interval(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach))


def checked(ratios: Sequence[float]) -> FloatArray:
    values = np.asarray(ratios, dtype=np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"a ratio of throughputs must be a positive number, not {list(ratios)}")
    return values
