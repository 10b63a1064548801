"""What is tracked: one metric of one cell on one machine, night by night. Raw repeats are kept; figures are worked out.

Pure data: where nights are stored and which run they came from is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from harness.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Night:
    """One night's repeats of one metric. `ordinal`: the day, as date.toordinal() counts.

    `control`: ratios of the same code against itself that night. `rerun`: the repeats that were made at once because
    the first ones looked changed. They are kept apart: the first were selected for being unusual, these were not.
    """

    ordinal: int
    values: tuple[float, ...]
    control: tuple[float, ...] = ()
    testbed: str = ""
    fit: bool = True
    unfit_reason: str = ""
    rerun: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.fit and not self.values:
            raise ConfigError(f"night {self.day}: a fit night needs at least one value; mark it unfit or leave it out")
        for name in ("values", "control", "rerun"):
            for value in getattr(self, name):
                if not (math.isfinite(value) and value > 0):
                    raise ConfigError(f"night {self.day}, {name}: {value} is no positive number; changes are ratios")

    @property
    def day(self) -> str:
        return day(self.ordinal)


@dataclass(frozen=True, slots=True)
class TrackedCell:
    experiment: str
    workload: str
    engine: str
    label: str  # measured, emulated or simulated

    def __str__(self) -> str:
        return f"{self.engine} on {self.workload} of {self.experiment}"


@dataclass(frozen=True, slots=True)
class Series:
    """Nights in order, all on one testbed: a machine change is no regression, so it begins another series.

    `requests`: how many a cell measures, None where unknown; cells of very few are observed and never alerted.
    """

    cell: TrackedCell
    metric: str
    higher_is_better: bool
    nights: tuple[Night, ...]
    requests: int | None = None

    def __post_init__(self) -> None:
        testbeds = sorted({night.testbed for night in self.nights})
        if len(testbeds) > 1:
            raise ConfigError(f"{self}: {', '.join(testbeds)} in one series; each testbed needs its own")
        days = [night.ordinal for night in self.nights]
        if any(later <= earlier for earlier, later in pairwise(days)):
            raise ConfigError(f"{self}: nights must be in order, one a day; add a second run of a day as its rerun")

    @property
    def testbed(self) -> str:
        return self.nights[0].testbed if self.nights else ""

    def __str__(self) -> str:
        return f"{self.metric} of {self.cell}"


def by_testbed(
    cell: TrackedCell, metric: str, higher_is_better: bool, nights: Iterable[Night], requests: int | None = None
) -> tuple[Series, ...]:
    """A series for each testbed, in the order of their first nights. One that comes back goes on with its own."""
    found: dict[str, list[Night]] = {}
    for night in sorted(nights, key=lambda night: night.ordinal):
        found.setdefault(night.testbed, []).append(night)
    return tuple(Series(cell, metric, higher_is_better, tuple(each), requests) for each in found.values())


def day(ordinal: int) -> str:
    return date.fromordinal(ordinal).isoformat()
