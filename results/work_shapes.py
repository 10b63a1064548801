"""How a part of a step's time depends on the step's work: one shape for two cells, which may go at different paces.

seconds of a step = pace of the cell x sum of weight x feature, with weights that are not negative. What a machine does
slower at equal work is then apart from what takes longer because there is more of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ROUNDS = 30


def fit(features: Sequence[Floats], seconds: Sequence[Floats], scale: Sequence[Floats]) -> Floats:
    """Of two cells' steps; errors count relative to `scale`, their own length, so that long steps do not decide alone.

    Paces begin equal, and move only as far as the steps ask for: where rows never vary within a cell, pace and shape
    cannot be told apart, and equal machines are the simpler story.
    """
    told = [cell for cell in zip(features, seconds, scale, strict=True) if cell[1].sum() > 0]
    if not told:
        return np.zeros(features[0].shape[1])
    normal = [_normal(*cell) for cell in told]
    gram = np.sum([each for each, _ in normal], axis=0)
    paces = np.ones(len(told))
    weights = np.zeros(len(gram))
    for _ in range(ROUNDS):
        # Seconds over paces, not paces times weights: errors then count alike in both cells.
        weights = _solved(
            gram, np.sum([moment / pace for (_, moment), pace in zip(normal, paces, strict=True)], axis=0)
        )
        predicted = np.array([float(work.sum(axis=0) @ weights) for work, _, _ in told])
        if not predicted.min() > 0:
            break
        found = np.array([float(taken.sum()) for _, taken, _ in told]) / predicted
        found /= np.exp(np.log(found).mean())
        if np.allclose(found, paces, rtol=1e-10, atol=0):
            break
        paces = found
    return weights


def _normal(features: Floats, seconds: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """A cell counts as one, however many steps it took."""
    there = scale > 0
    rows, side = features[there] / scale[there, None], seconds[there] / scale[there]
    return rows.T @ rows / len(side), rows.T @ side / len(side)


def _solved(gram: Floats, moment: Floats) -> Floats:
    """Non-negative least squares from the normal equations, columns brought to one size first."""
    from scipy.optimize import nnls

    size = np.sqrt(np.diag(gram))
    used = size > 0
    weights = np.zeros(len(size))
    if not used.any():
        return weights
    scaled = gram[np.ix_(used, used)] / np.outer(size[used], size[used])
    values, vectors = np.linalg.eigh(scaled)
    kept = values > 1e-12 * values[-1]
    root = np.sqrt(values[kept])
    target = (vectors[:, kept].T @ (moment[used] / size[used])) / root
    found, _ = nnls(root[:, None] * vectors[:, kept].T, target)
    weights[used] = found / size[used]
    return weights
