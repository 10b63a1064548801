"""What can be said of a night, and the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from harness.stats import Interval
from harness.tracking.series import Series, day


class State(StrEnum):
    UNFIT = "unfit"  # the environment gate: a night that is not used, and no regression
    LEARNING = "learning"
    OBSERVED = "observed"  # never alerted: tails of distributions, tiny cells
    OK = "ok"
    CONFIRM = "confirm"  # looks changed: `wants_rerun` asks for more repeats at once
    ALERT = "alert"  # a regression, told for the first time
    IMPROVEMENT = "improvement"
    OPEN = "open"  # told before, neither acknowledged nor gone
    ACKNOWLEDGED = "acknowledged"
    NOISY = "too noisy"  # told once, until the noise has gone and come back
    MISSING = "missing"


class Shape(StrEnum):
    STEP = "step"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Ack:
    """`ordinal`: the day of the change, as the alert names it. A new level begins there, whatever its size."""

    ordinal: int
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """`ordinal`: the first night of the new level. `since`: of a drift, where it began; of a step, the same night.

    `size` is relative: -0.05 is 5 % less; its interval has 95 %. Figures are in the metric's own unit.
    """

    shape: Shape
    ordinal: int
    since: int
    size: Interval
    before: float
    after: float
    nights: int
    p: float
    is_worse: bool

    def sentence(self, series: Series) -> str:
        direction = "higher" if self.size.value > 0 else "lower"
        low, high = sorted((self.size.low, self.size.high), key=abs)
        if low * high < 0:
            band = f"{100 * self.size.low:+.1f} to {100 * self.size.high:+.1f}"
        else:
            band = f"{100 * abs(low):.1f}-{100 * abs(high):.1f}"
        effect = f"{100 * abs(self.size.value):.1f} % {direction}"
        how = (
            f"has drifted {effect} from {day(self.since)} to {day(self.ordinal)}"
            if self.shape is Shape.DRIFT
            else f"is {effect} since {day(self.ordinal)}"
        )
        return (
            f"{series} {how} (95 % interval {band} %; median {self.before:.4g} before, {self.after:.4g} after; "
            f"{self.nights} nights, p {self.p:.3f}) [{series.cell.label}]"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a series on a night. `bar`: the smallest relative change that would be alerted, None until known.

    `open`: regressions told and neither acknowledged nor gone, tonight's alert among them.
    """

    ordinal: int
    state: State
    sentence: str
    change: Change | None = None
    wants_rerun: bool = False
    noise: float | None = None
    bar: float | None = None
    open: tuple[Change, ...] = ()


def percent(log_change: float) -> str:
    return f"{100 * abs(math.expm1(log_change)):.1f} %"
