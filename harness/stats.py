"""What a set of figures allows one to say: intervals, streams too long to keep, and the verdict sentence.

Numbers in, numbers or sentences out: no files, no clocks, nothing of engines but their names. All intervals are 95 %.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

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
    low = int(scipy_stats.binom.ppf(0.025, count, quantile))
    high = int(scipy_stats.binom.ppf(0.975, count, quantile)) + 1
    return (low, high) if low >= 1 and high <= count else None


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
    logs = np.log(_checked(ratios))
    if logs.size < 2:
        raise ValueError(f"an interval needs at least 2 pairs, there are {logs.size}")
    centre = float(logs.mean())
    reach = float(scipy_stats.t.ppf(0.975, logs.size - 1) * logs.std(ddof=1) / math.sqrt(logs.size))
    return Interval(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach))


def verdict_sentence(a_name: str, b_name: str, ratios: Sequence[float]) -> str:
    """One sentence on a against b, where a ratio is a's throughput over b's in one pair."""
    pairs = len(ratios)
    if pairs < MIN_PAIRS:
        return _figures(a_name, b_name, _checked(ratios))
    found = paired_interval(ratios)
    # In a deterministic simulation nothing varies: an interval of width 0 would claim a certainty that nobody measured.
    all_equal = found.high - found.low < 1e-6 * found.value
    if found.low - 1e-6 <= 1 <= found.high + 1e-6:
        figures = f"the same in all {pairs} pairs" if all_equal else f"95 % interval {_signed(found)} %, {pairs} pairs"
        return f"no difference shown ({a_name} against {b_name}: {figures})"
    figures = f"the same in all {pairs} pairs" if all_equal else f"95 % interval {_unsigned(found)} %, {pairs} pairs"
    direction = "faster" if found.value > 1 else "slower"
    effect = f"{100 * abs(found.value - 1):.{_decimals(found)}f}"
    return f"{a_name} is {effect} % {direction} than {b_name} ({figures})"


def _figures(a_name: str, b_name: str, ratios: FloatArray) -> str:
    if not ratios.size:
        return f"{a_name} and {b_name} have no pair to compare"
    middle = math.exp(float(np.log(ratios).mean()))
    plural = "pair" if ratios.size == 1 else "pairs"
    return (
        f"{a_name} / {b_name} = {middle:.3g} ({ratios.min():.3g}-{ratios.max():.3g} in {ratios.size} {plural}); "
        f"no verdict below {MIN_PAIRS} pairs"
    )


def _checked(ratios: Sequence[float]) -> FloatArray:
    values = np.asarray(ratios, dtype=np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"a ratio of throughputs must be a positive number, not {list(ratios)}")
    return values


def _decimals(found: Interval) -> int:
    """As many as the interval's width supports, and enough that an end which is not 0 does not read as 0."""
    width = 100 * (found.high - found.low)
    digits = 0 if width >= 4 or width < 1e-4 else 1 if width >= 0.4 else 2
    while digits < 4 and any(round(100 * abs(end - 1), digits) == 0 for end in (found.low, found.high)):
        digits += 1
    return digits


def _unsigned(found: Interval) -> str:
    digits = _decimals(found)
    return "-".join(f"{100 * end:.{digits}f}" for end in sorted((abs(found.low - 1), abs(found.high - 1))))


def _signed(found: Interval) -> str:
    digits = _decimals(found)
    return f"{100 * (found.low - 1):+.{digits}f} to {100 * (found.high - 1):+.{digits}f}"


# --- the cells of a run -----------------------------------------------------------------------------------------------

Cell = Mapping[str, Any]
THROUGHPUT = "output_tokens_per_s"


def verdicts(cells: Sequence[Cell]) -> list[str]:
    """The sentences that open a report: each engine against the baseline, per workload, then what was left out."""
    engines = list(dict.fromkeys(str(cell["engine"]) for cell in cells))
    workloads = list(dict.fromkeys(str(cell["workload"]) for cell in cells))
    lines = []
    for workload in workloads:
        here = [cell for cell in cells if cell["workload"] == workload]
        prefix = f"{workload}: " if len(workloads) > 1 else ""
        lines += [prefix + line for line in _on_workload(engines, here)]
    return lines + _left_out(cells)


def _on_workload(engines: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    usable = {name: [cell for cell in cells if cell["engine"] == name and _is_usable(cell)] for name in engines}
    baseline = "gpu_only" if "gpu_only" in engines else engines[0]
    if len(engines) == 1:
        return _medians(usable)
    if not usable[baseline]:
        return [f"{baseline}, the baseline, has no valid cell: nothing is compared with it", *_medians(usable)]
    return [_compare(usable[name], usable[baseline], name, baseline) for name in engines if name != baseline]


def _compare(ours: Sequence[Cell], theirs: Sequence[Cell], name: str, baseline: str) -> str:
    if not ours:
        return f"{name} has no valid cell: no comparison with {baseline}"
    labels = [sorted({str(cell["label"]) for cell in side}) for side in (ours, theirs)]
    if labels[0] != labels[1] or len(labels[0]) > 1:
        return (
            f"{name} is {'/'.join(labels[0])} and {baseline} {'/'.join(labels[1])}: different labels are not compared"
        )
    if any(max(Counter(cell["repeat"] for cell in side).values()) > 1 for side in (ours, theirs)):
        return f"{name} and {baseline} have several cells of one repeat: points of a sweep need names of their own"
    by_repeat = {cell["repeat"]: cell for cell in theirs}
    pairs = [(cell, by_repeat[cell["repeat"]]) for cell in ours if cell["repeat"] in by_repeat]
    # A plateau of one side against the whole run of the other would compare different phases of the load.
    same_window = all(_plateau(a) == _plateau(b) for a, b in pairs)
    key = THROUGHPUT if same_window else f"{THROUGHPUT}_whole_run"
    found = [(a["metrics"].get(key), b["metrics"].get(key)) for a, b in pairs]
    ratios = [float(a) / float(b) for a, b in found if a and b]
    window = "" if same_window else ", over the whole run"
    return f"{verdict_sentence(name, baseline, ratios)} [{labels[0][0]}{window}]"


def _plateau(cell: Cell) -> bool:
    return bool(cell["metrics"].get("window_is_plateau", 0.0))


def _medians(usable: Mapping[str, Sequence[Cell]]) -> list[str]:
    lines = []
    for name, cells in usable.items():
        for label in dict.fromkeys(str(cell["label"]) for cell in cells):
            figures = [float(cell["metrics"][THROUGHPUT]) for cell in cells if cell["label"] == label]
            plural = "repeat" if len(figures) == 1 else "repeats"
            lines.append(
                f"{name}: {np.median(figures):.4g} output tokens/s, median of {len(figures)} {plural} [{label}]"
            )
    return lines


def _is_usable(cell: Cell) -> bool:
    figure = (cell.get("metrics") or {}).get(THROUGHPUT)
    return cell["status"] == "ok" and figure is not None and math.isfinite(figure) and figure > 0


def _left_out(cells: Sequence[Cell]) -> list[str]:
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((str(cell["engine"]), str(cell["workload"])), []).append(cell)
    lines = []
    for (engine, workload), group in groups.items():
        bad = [cell for cell in group if not _is_usable(cell)]
        if bad:
            reasons = "; ".join(dict.fromkeys(_reason(cell) for cell in bad))
            lines.append(f"{engine} on {workload}: {len(bad)} of {len(group)} cells left out ({reasons})")
    return lines


def _reason(cell: Cell) -> str:
    if cell["status"] == "ok":
        return "ok, but without a throughput"
    text = str(cell.get("error") or next(iter(cell.get("notes") or []), "")).strip()
    first = text.splitlines()[0][:160] if text else ""
    return f"{cell['status']}: {first}" if first else str(cell["status"])
