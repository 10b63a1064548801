"""Measured points made continuous: curves and surfaces that are exact where measured, never fall, and go on beyond.

What they are curves of is profile_table.py's.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

Knots = Sequence[tuple[int, float]]  # (x, seconds), x rising
Cells = Mapping[tuple[int, int], float]  # (x, y) -> seconds


class Curve:
    """Piecewise linear. Flat before the first knot (a call costs a call, however little it does); after the last one it
    goes on with its last slope.
    """

    __slots__ = ("_slopes", "_values", "_xs")

    def __init__(self, xs: Sequence[int], values: Sequence[float], end_slope: float | None = None) -> None:
        """`xs` rising, `values` not falling; `end_slope` where the last two knots do not say how it goes on."""
        self._xs, self._values = tuple(xs), tuple(values)
        slopes = [(above - below) / (right - left) for (left, right), (below, above) in _steps(xs, values)]
        last = slopes[-1] if slopes else 0.0
        self._slopes = (*slopes, last if end_slope is None else end_slope)

    @staticmethod
    def fit(knots: Knots) -> "Curve":
        return Curve([x for x, _ in knots], rising([seconds for _, seconds in knots]))

    @property
    def end_slope(self) -> float:
        return self._slopes[-1]

    def __call__(self, x: float) -> float:
        index = bisect_right(self._xs, x) - 1
        if index < 0:
            return self._values[0]
        return self._values[index] + self._slopes[index] * (x - self._xs[index])


class Surface:
    """Bilinear over (x, y), and rising in both wherever it is asked.

    Lines of equal x may have been measured to different ends (many rows with long contexts fit no memory): each goes on
    with its last slope.
    """

    def __init__(self, cells: Cells) -> None:
        self._ys = sorted({y for _, y in cells})
        self._xs = sorted({x for x, _ in cells})
        measured = [self._whole_line(cells, x) for x in self._xs]
        self._lines = [*accumulate(measured, _larger)]  # more of x is never cheaper
        # Nor beyond the last y, where lines whose slopes are noisy would cross.
        self._end_slopes = [*accumulate((Curve(self._ys, line).end_slope for line in self._lines), max)]
        if len(self._xs) > 1:
            self._continue_in_x()
        self.at: Callable[[float], Curve] = lru_cache(8192)(self._at)  # few x recur: batch sizes, lengths of chunks

    def __call__(self, x: float, y: float) -> float:
        return self.at(x)(y)

    def _whole_line(self, cells: Cells, x: int) -> list[float]:
        curve = Curve.fit([(y, cells[x, y]) for y in self._ys if (x, y) in cells])
        return [curve(y) for y in self._ys]

    def _continue_in_x(self) -> None:
        """One more line, as far after the last as that is after the one before it: how the surface goes on in x.

        The step to it is made to rise in y, so that noise in the last two lines makes no long context cheap far out.
        """
        below, last = self._lines[-2:]
        steps = accumulate((high - low for low, high in zip(below, last, strict=True)), max)
        self._lines.append([value + step for value, step in zip(last, steps, strict=True)])
        self._end_slopes.append(2 * self._end_slopes[-1] - self._end_slopes[-2])
        self._xs.append(2 * self._xs[-1] - self._xs[-2])

    def _at(self, x: float) -> Curve:
        """The curve over y for this x."""
        index = min(max(bisect_right(self._xs, x) - 1, 0), max(len(self._xs) - 2, 0))
        above = min(index + 1, len(self._xs) - 1)
        share = max(0.0, (x - self._xs[index]) / (self._xs[above] - self._xs[index])) if above > index else 0.0
        pairs = zip(self._lines[index], self._lines[above], strict=True)
        values = [low + share * (high - low) for low, high in pairs]
        low, high = self._end_slopes[index], self._end_slopes[above]
        return Curve(self._ys, values, low + share * (high - low))


def rising(values: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls (isotonic regression): where it falls, means take its place."""
    pools: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while pools and pools[-1][0] * count > total * pools[-1][1]:
            before, size = pools.pop()
            total, count = total + before, count + size
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]


def _larger(a: list[float], b: list[float]) -> list[float]:
    return [*map(max, a, b)]


def _steps(xs: Sequence[int], values: Sequence[float]) -> "zip[tuple[tuple[int, int], tuple[float, float]]]":
    return zip(pairwise(xs), pairwise(values), strict=True)
