"""What measured products of so many rows took, over what the roofline says of them: tiles and waves of a real kernel
make steps that no smooth formula has. Not here: how the ratios are found (harness/fitting.py).
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import exp, log

from engines.core.curves import rising

RatioPoints = Sequence[tuple[int, float]]  # (rows, measured / formula), rows rising


class RowRatios:
    """Interpolated over log rows; beyond the first and the last point its ratio stays.

    More rows never take less. Where ratios would have it so, points share their mean, and between two points nothing
    falls below the first: the formula is convex over log rows and the ratio's logarithm is straight, so that is enough.
    """

    def __init__(self, points: RatioPoints, formula: Callable[[float], float]) -> None:
        """`formula`: seconds of so many rows of any one matrix, without what is fixed; only its proportions matter."""
        self._formula = formula
        self._rows = [rows for rows, _ in points]
        self._floors = rising([ratio * formula(rows) for rows, ratio in points])
        self._logs = [log(floor / formula(rows)) for floor, rows in zip(self._floors, self._rows, strict=True)]

    def __call__(self, rows: float) -> float:
        index = bisect_right(self._rows, rows) - 1
        if index < 0:
            return exp(self._logs[0])
        if index == len(self._rows) - 1:
            return exp(self._logs[-1])
        left, right = self._rows[index], self._rows[index + 1]
        share = log(rows / left) / log(right / left)
        ratio = exp(self._logs[index] + share * (self._logs[index + 1] - self._logs[index]))
        return max(ratio, self._floors[index] / self._formula(rows))
