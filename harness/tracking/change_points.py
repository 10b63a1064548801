"""Where a row of figures changes: E-divisive (Matteson and James, 2014), energy statistics with a permutation test.

Numbers in, numbers out. What a change is worth saying is for judgement.py. The permutations are seeded by the length of
the row alone, so that the same history is always judged the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from harness.stats import FloatArray
from harness.tracking.noise import middle

PERMUTATIONS = 999
SEED = 20_140_101
ROUNDING = 1e-9
BATCH = 111  # permutations at a time; most that fail do so in the first hundred


@dataclass(frozen=True, slots=True)
class Split:
    """`at`: the first index after the change. `q`: the scaled energy distance between the two sides."""

    at: int
    q: float


def best_split(values: FloatArray, first: int, last: int) -> Split | None:
    """The split in first..last (both included) whose sides differ most; None where there is none to choose."""
    if last < first:
        return None
    q = _statistics(values[np.newaxis], first, last)[0]
    index = int(q.argmax())
    return Split(first + index, float(q[index]))


def p_value(values: FloatArray, split: Split, first: int, last: int, stop_above: float = 1.0) -> float:
    """The share of orders of the same figures whose best split is as good, the one that was seen among them.

    It holds at any level if figures are exchangeable, however many splits are tried: each order is granted its best.
    Stops early, with a p above `stop_above`, once it cannot come out below.
    """
    orders = _orders(values.size)
    least = split.q - ROUNDING * abs(split.q)  # an order that is as good must not fail by its sums' rounding
    reached = 1
    for begin in range(0, PERMUTATIONS, BATCH):
        q = _statistics(values[orders[begin : begin + BATCH]], first, last)
        reached += int((q.max(axis=1) >= least).sum())
        if reached > stop_above * (PERMUTATIONS + 1):
            break
    return reached / (PERMUTATIONS + 1)


def change_points(
    values: Sequence[float] | FloatArray, *, significance: float = 0.05, min_size: int = 2, min_effect: float = 0.0
) -> list[int]:
    """First indices of new levels, in order: the best split, then the best within each part, while significant.

    `min_effect`: relative, of medians; a split that is significant and smaller is none, and its part is left whole.
    """
    figures = np.asarray(values, dtype=np.float64)
    found: list[int] = []
    parts = [(0, figures.size)]
    while parts:
        begin, end = parts.pop()
        part = figures[begin:end]
        first, last = min_size, part.size - min_size
        split = best_split(part, first, last)
        if split is None or not _is_large(part, split.at, min_effect):
            continue
        if p_value(part, split, first, last, significance) <= significance:
            found.append(begin + split.at)
            parts += [(begin, begin + split.at), (begin + split.at, end)]
    return sorted(found)


def energy_distance(left: FloatArray, right: FloatArray) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, the two samples taken as the whole distributions (Szekely and Rizzo)."""
    across, within = np.abs(left[:, None] - right), (np.abs(side[:, None] - side) for side in (left, right))
    return float(2 * across.mean() - sum(each.mean() for each in within))


def _is_large(part: FloatArray, at: int, min_effect: float) -> bool:
    before, after = middle(part[:at]), middle(part[at:])
    return abs(after - before) >= min_effect * abs(before)


def _statistics(rows: FloatArray, first: int, last: int) -> FloatArray:
    """q of every split in first..last, for each row: sides of n and m figures, n m / (n + m) times the energy distance
    with the means within a side over its pairs (equations 5 and 6 of the paper, their exponent 1).

    Sums of |a - b| over pairs come from two running sums of one distance matrix: over the pairs whose later figure is
    before the split, and over those whose earlier figure is after it. The rest of all pairs lies across.
    """
    size = rows.shape[1]
    distances = np.abs(rows[:, :, np.newaxis] - rows[:, np.newaxis, :])
    to_earlier = np.einsum("rij,ij->ri", distances, _below(size))
    to_later = distances.sum(axis=2) - to_earlier
    splits = np.arange(first, last + 1)
    left = np.cumsum(to_earlier, axis=1)[:, splits - 1]
    right = np.cumsum(to_later[:, ::-1], axis=1)[:, size - splits - 1]
    across = to_earlier.sum(axis=1, keepdims=True) - left - right
    n, m = splits, size - splits
    # A side of one figure has no pairs; its sum is 0, whatever it is divided by.
    within = left / np.maximum(n * (n - 1), 1) + right / np.maximum(m * (m - 1), 1)
    found: FloatArray = 2 * n * m / size * (across / (n * m) - within)
    return found


@lru_cache(256)
def _below(size: int) -> FloatArray:
    return np.tri(size, k=-1)


@lru_cache(256)
def _orders(size: int) -> npt.NDArray[np.intp]:
    rng = np.random.default_rng((SEED, size))
    return rng.permuted(np.tile(np.arange(size), (PERMUTATIONS, 1)), axis=1)
