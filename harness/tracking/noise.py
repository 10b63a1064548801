"""How noisy a series is: the spread of its nights, and what the same code shows against itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from harness.stats import FloatArray, Interval

NORMAL_MAD = 1.4826  # the standard deviation of a normal sample over its median absolute deviation
CLIP = 3.0
MIN_CONTROLS = 5


def middle(values: FloatArray) -> float:
    """The median. numpy's own takes 40 us for a dozen figures, and a judgement needs twenty of them."""
    ordered = np.sort(values)
    half = ordered.size // 2
    return float(ordered[half]) if ordered.size % 2 else float(ordered[half - 1] + ordered[half]) / 2


def winsorised(values: FloatArray, clip: float = CLIP) -> FloatArray:
    """What lies further than `clip` robust standard deviations from the median is moved to there: one wild night is
    still the lowest, and no longer outweighs all others."""
    centre = middle(values)
    reach = clip * NORMAL_MAD * middle(np.abs(values - centre))
    if reach == 0:  # more than half are equal, as in a deterministic simulation: no scale to clip by
        return values
    return np.minimum(np.maximum(values, centre - reach), centre + reach)


def spread(values: FloatArray) -> float:
    """Standard deviation of one night, of winsorised figures: nearly as sharp as the plain one, and deaf to outliers.
    The median absolute deviation alone would be off by a third at ten nights."""
    if values.size < 3 or middle(np.abs(values - middle(values))) == 0:
        return 0.0
    clipped = winsorised(values)
    residuals = clipped - clipped.sum() / clipped.size
    return math.sqrt(float(residuals @ residuals) / (clipped.size - 1))


def control_spread(log_ratios: Sequence[float]) -> float:
    """Standard deviation of log ratios of the same code against itself, around 0: a bias of the control is noise too.
    0 with too few to say."""
    if len(log_ratios) < MIN_CONTROLS:
        return 0.0
    ratios = np.array(log_ratios)
    reach = CLIP * NORMAL_MAD * middle(np.abs(ratios))
    clipped = np.minimum(np.maximum(ratios, -reach), reach)
    return math.sqrt(float(clipped @ clipped) / clipped.size)


def change_interval(before: FloatArray, after: FloatArray) -> Interval:
    """The difference of medians of logarithms, with 95 %: Student's t on the pooled spread of both sides.

    A median's standard error is sqrt(pi / 2) of a mean's. Takes nights for independent: too narrow where they are not.
    """
    value = middle(after) - middle(before)
    residuals = [side - middle(side) for side in (winsorised(before), winsorised(after))]
    freedom = max(before.size + after.size - 2, 1)
    pooled = math.sqrt(sum(float(np.square(each).sum()) for each in residuals) / freedom)
    error = pooled * math.sqrt(math.pi / 2 * (1 / before.size + 1 / after.size))
    reach = float(special.stdtrit(freedom, 0.975)) * error
    return Interval(value, value - reach, value + reach)
