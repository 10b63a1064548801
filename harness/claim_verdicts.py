"""From a claim and the points that our engines give to a verdict, in words that claim no more than was shown.

`reproduced` is for measurements on the machine in question. A simulation can only agree with a claim or not: it is
*consistent with our model* when the band over the uncertain constants reaches what was published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from harness.claim_points import Found, Point
from harness.claims import Claim, Expect


class Word(StrEnum):
    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CONSISTENT = "consistent with our model"
    INCONSISTENT = "not consistent with our model"
    UNTESTABLE = "not testable here"


WORDS = {"measured": (Word.REPRODUCED, Word.NOT_REPRODUCED), "simulated": (Word.CONSISTENT, Word.INCONSISTENT)}
SHOWN = 6  # points in a sentence


@dataclass(frozen=True, slots=True)
class Verdict:
    claim: Claim
    word: Word
    label: str  # empty where nothing was run
    points: tuple[Point, ...]
    why: str

    def to_json(self) -> dict[str, Any]:
        return {
            "claim": self.claim.model_dump(mode="json", exclude_none=True),
            "verdict": self.word.value,
            "label": self.label,
            "points": [asdict(point) for point in self.points],
            "why": self.why,
        }


def verdict(claim: Claim, found: Found | None) -> Verdict:
    if claim.untestable is not None or found is None:
        return Verdict(claim, Word.UNTESTABLE, "", (), str(claim.untestable))
    if not found.points:
        return Verdict(claim, Word.UNTESTABLE, "", (), found.problem)
    label = found.label
    judged = _judged(claim.expect, found.points)
    met = [_met(claim.expect, point, claim.tolerance) for point in judged]
    word = WORDS[label][0 if all(met) else 1]
    ran = claim.test is not None and claim.test.weights is None  # sizes of weights are arithmetic
    return Verdict(claim, word, label if ran else "", found.points, _sentence(claim.expect, found.points, judged, met))


def _judged(expect: Expect, points: Sequence[Point]) -> Sequence[Point]:
    """`up to` speaks of the best point; everything else of all."""
    return [max(points, key=lambda point: point.value)] if expect.up_to is not None else points


def _met(expect: Expect, point: Point, tolerance: float) -> bool:
    """Whether the band reaches what was published, give or take what print rounds away."""
    low, high = _limits(expect)
    return point.high >= low * (1 - tolerance) and point.low <= high * (1 + tolerance)


def _limits(expect: Expect) -> tuple[float, float]:
    if expect.range is not None:
        return expect.range
    if expect.up_to is not None:
        return expect.up_to, expect.up_to
    low = 0.0 if expect.at_least is None else expect.at_least
    return low, float("inf") if expect.at_most is None else expect.at_most


def _sentence(expect: Expect, points: Sequence[Point], judged: Sequence[Point], met: Sequence[bool]) -> str:
    if expect.up_to is not None:
        return f"the best of {_plural(len(points))} is {_told(judged[0])}, published is {expect.words}"
    if len(points) == 1:
        return f"{_told(points[0])}, which is {'within' if met[0] else 'not within'} {expect.words}"
    shown = ", ".join(_told(point) for point in points[:SHOWN])
    more = f" and {len(points) - SHOWN} more" if len(points) > SHOWN else ""
    return f"{sum(met)} of {_plural(len(met))} within {expect.words}: {shown}{more}"


def _told(point: Point) -> str:
    return f"{_figure(point.value)} ({_figure(point.low)}-{_figure(point.high)}) on {point.workload}"


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _plural(count: int) -> str:
    return "one point" if count == 1 else f"{count} points"
