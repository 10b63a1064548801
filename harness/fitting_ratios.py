"""Ratios of measured products over the roofline's formula, one table for each shape of matrix, and the rows of a tile.

A kernel computes whole tiles, so its time rises in steps of so many rows; and it has as many tiles beside each other as
the matrix has columns for, so each product has its waves at counts of its own. Neither is in a smooth formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from engines.core.products import in_tiles
from engines.hardware import ByShape, ByTokens, Gemm, Product
from harness.fitting import Fit, Peaks, Samples, fit_gemm
from harness.op_tables import Point

if TYPE_CHECKING:
    from harness.fitting import Floats

RATIO_POINTS = 16
TILES = (1, 16, 32, 64, 128)  # rows of the tiles that common kernels have; 1: none to be seen
LEAST_STREAMED = 0.1  # of what was measured, where the fixed part would leave nothing

Shape = tuple[int, int]  # inputs, outputs


@dataclass(frozen=True, slots=True)
class Tables:
    fit: Fit  # with the tile that it was made for
    by_shape: ByShape


def fit_tables(
    points: Sequence[Point],
    products: Mapping[Shape, Sequence[Point]],
    peaks: Peaks,
    rounded: Callable[[float], float] = float,
) -> Tables:
    """`points`: what the formula is fitted to. `products`: of the matrices that get a table. The tile is the one with
    which these very points are met best. Constants are rounded before ratios are taken over them.
    """
    fits = [_fit(points, peaks, tile_rows, rounded) for tile_rows in TILES]
    return min((_tables(products, peaks, fit) for fit in fits), key=lambda found: found[0])[1]


def _fit(points: Sequence[Point], peaks: Peaks, tile_rows: int, rounded: Callable[[float], float]) -> Fit:
    found = fit_gemm(Samples.of(points, peaks, tile_rows))
    gemm = Gemm(
        rounded(found.gemm.bandwidth_efficiency),
        rounded(found.gemm.compute_efficiency),
        rounded(found.gemm.exponent),
        tile_rows,
    )
    return Fit(gemm, rounded(found.fixed_s))


def _tables(products: Mapping[Shape, Sequence[Point]], peaks: Peaks, fit: Fit) -> tuple[float, Tables]:
    """And what it misses: the mean square of log errors."""
    tables = {shape: fit_ratios(of_shape, peaks, fit) for shape, of_shape in products.items()}
    missed = np.concatenate([_missed(of_shape, peaks, fit, tables[shape]) for shape, of_shape in products.items()])
    by_shape = ByShape(tuple(Product(*shape, table) for shape, table in tables.items()))
    return float((missed**2).mean()), Tables(fit, by_shape)


def _missed(points: Sequence[Point], peaks: Peaks, fit: Fit, table: ByTokens) -> Floats:
    samples = Samples.of(points, peaks, fit.gemm.tile_rows)
    tiled = [in_tiles(point.tokens, fit.gemm.tile_rows) for point in points]
    ratios = np.exp(np.interp(np.log(tiled), np.log(table.tokens), np.log(table.ratios)))
    missed: Floats = np.log((ratios * fit.streamed_s(samples) + fit.fixed_s * samples.products) / samples.seconds)
    return missed


def fit_ratios(points: Sequence[Point], peaks: Peaks, fit: Fit, most: int = RATIO_POINTS) -> ByTokens:
    """Measured over formula at the `most` counts of tokens between which interpolation does best; of one product.

    What takes less with more rows is noise, or a kernel chosen badly: such counts share their mean first, because the
    simulator has no falling times.
    """
    from scipy.optimize import isotonic_regression

    tokens, logs, weights = _by_tile(points, peaks, fit)
    formula = np.log(fit.streamed_s(Samples.of([replace(points[0], tokens=count) for count in tokens], peaks)))
    logs = isotonic_regression(logs + formula, weights=weights).x - formula
    kept = best_knots(np.log(np.array(tokens, dtype=np.float64)), logs, most, weights)
    return ByTokens(
        tuple(tokens[index] for index in kept), tuple(round(float(np.exp(logs[index])), 4) for index in kept)
    )


def _by_tile(points: Sequence[Point], peaks: Peaks, fit: Fit) -> tuple[list[int], Floats, Floats]:
    """Counts as the kernel has them, the mean log ratio of each, and how many points it is the mean of."""
    samples = Samples.of(points, peaks, fit.gemm.tile_rows)
    streamed_s = samples.seconds - fit.fixed_s * samples.products
    ratios = np.maximum(streamed_s, LEAST_STREAMED * samples.seconds) / fit.streamed_s(samples)
    found: dict[int, list[float]] = {}
    for point, ratio in zip(points, np.log(ratios), strict=True):
        found.setdefault(in_tiles(point.tokens, fit.gemm.tile_rows), []).append(float(ratio))
    tokens = sorted(found)
    means = np.array([np.mean(found[count]) for count in tokens], dtype=np.float64)
    return tokens, means, np.array([len(found[count]) for count in tokens], dtype=np.float64)


def best_knots(xs: Floats, ys: Floats, most: int, weights: Floats) -> list[int]:
    """Which points to keep, both ends among them, so that straight lines between them miss the others by least squares.

    By dynamic programming: the best way to reach a point with so many knots extends the best way to an earlier one.
    """
    if most >= len(xs):
        return list(range(len(xs)))
    misses = _misses(xs, ys, weights)
    best, came_from = misses[0], []
    for _ in range(most - 2):
        through = best[:, None] + misses
        came_from.append(through.argmin(axis=0))
        best = through.min(axis=0)
    knots = [len(xs) - 1]
    for back in reversed(came_from):
        knots.append(int(back[knots[-1]]))
    return sorted({0, *knots})


def _misses(xs: Floats, ys: Floats, weights: Floats) -> Floats:
    """From each point to each later one: what a straight line between them misses. Standing still is no step back."""
    count = len(xs)
    misses = np.full((count, count), np.inf)
    np.fill_diagonal(misses, 0.0)
    for left in range(count):
        for right in range(left + 1, count):
            share = (xs[left + 1 : right] - xs[left]) / (xs[right] - xs[left])
            line = ys[left] + share * (ys[right] - ys[left])
            misses[left, right] = float((weights[left + 1 : right] * (ys[left + 1 : right] - line) ** 2).sum())
    return misses
