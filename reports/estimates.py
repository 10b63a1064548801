"""One figure with how sure it is: the range over repeats, or the interval that a single repeat carries itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from results.query import Group


class Source(Enum):
    """Where `low` and `high` come from."""

    REPEATS = "lowest and highest of the repeats"
    INTERVAL = "95 % interval within one repeat"
    NOTHING = "one value"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The median of the repeats and its span; `values` are the repeats one by one."""

    value: float
    low: float
    high: float
    source: Source
    values: tuple[float, ...]


def estimate(group: Group, metric: str) -> Estimate | None:
    """None when no successful repeat has the metric."""
    spread = group.spread(metric)
    if spread is None:
        return None
    if len(spread.values) > 1:
        return Estimate(spread.median, spread.low, spread.high, Source.REPEATS, spread.values)
    low, high = group.spread(f"{metric}_low"), group.spread(f"{metric}_high")
    if low is None or high is None:
        return Estimate(spread.median, spread.median, spread.median, Source.NOTHING, spread.values)
    return Estimate(spread.median, low.median, high.median, Source.INTERVAL, spread.values)
