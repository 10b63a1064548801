"""By how much host and accelerator are in each other's way: points of a profile beside the same points alone.

One factor for each kind of unit is what a catalogue entry holds; how unequal the points are is told as its range. What
a profile itself says of every single point stays in its own two tables.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.profile_file import Points

UNITS = {
    "host": ("host_attention",),
    "links": ("move_to_host", "move_to_accel"),
    "accelerator": ("first", "between", "last", "decode_attention", "prefill_attention"),
}
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Slowdown:
    """In times of what ops take alone; never below 1, which only noise is."""

    value: float
    low: float
    high: float


def slowdowns(alone: Points, beside: Points) -> dict[str, Slowdown]:
    """By unit; none for a unit of which nothing was measured in both."""
    found = {unit: [ratio for op in ops for ratio in _ratios(alone, beside, op)] for unit, ops in UNITS.items()}
    return {unit: _slowdown(ratios) for unit, ratios in found.items() if ratios}


def _ratios(alone: Points, beside: Points, op: str) -> Iterator[float]:
    """Point by point. Host attention was timed beside others with all threads only."""
    alone_s = _medians(alone, op)
    for key, beside_s in _medians(beside, op).items():
        if alone_s.get(key):
            yield beside_s / alone_s[key]


def _medians(points: Points, op: str) -> Mapping[Hashable, float]:
    return {point.key: point.median_s for point in getattr(points, op)}


def _slowdown(ratios: Sequence[float]) -> Slowdown:
    low, value, high = (float(f"{max(1.0, each):.{DIGITS}g}") for each in np.percentile(ratios, [25, 50, 75]))
    return Slowdown(value, low, high)
