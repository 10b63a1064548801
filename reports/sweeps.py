"""Workloads that differ in their request rate only, and the points of theirs that nothing else beats.

A point of a sweep is known by its name, `chat-0.8rps`: kind or name of the workload, then the rate that was asked for,
then points of what else was swept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_POINT = re.compile(r"(?P<base>.+)-(?P<rate>\d+(?:\.\d+)?(?:e-?\d+)?)rps(?P<rest>-.+)?")


@dataclass(frozen=True, slots=True)
class RateSweep:
    """One workload at several rates, the lowest first."""

    base: str
    points: tuple[tuple[float, str], ...]  # requests per second asked for, name of the workload


def rate_sweeps(workloads: Sequence[str]) -> list[RateSweep]:
    """Sweeps of two rates or more, in the order of their first point."""
    found: dict[str, list[tuple[float, str]]] = {}
    for workload in workloads:
        point = _POINT.fullmatch(workload)
        if point:
            found.setdefault(point["base"] + (point["rest"] or ""), []).append((float(point["rate"]), workload))
    return [RateSweep(base, tuple(sorted(points))) for base, points in found.items() if len(points) > 1]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (throughput, latency) that no other beats: not worse in either, and better in one.

    In the order of throughput.
    """

    def beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] >= point[0] and other[1] <= point[1] for other in points)

    return sorted((place for place, point in enumerate(points) if not beaten(point)), key=lambda place: points[place])
