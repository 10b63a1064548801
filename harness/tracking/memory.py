"""What is remembered of a series from night to night: the fit nights as logarithms, where levels begin, what was told.

Frozen: a night that is judged again, because its rerun has come, starts from the memory of the night before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import numpy as np

from harness.stats import FloatArray
from harness.tracking.noise import middle
from harness.tracking.outcome import Change
from harness.tracking.rules import Rules
from harness.tracking.series import Night

ANCHOR_NIGHTS = 5  # whose median stands for a level when the levels before are moved onto it


@dataclass(frozen=True, slots=True)
class Seen:
    """A fit night. `figure`: log of the median of all repeats; `rerun`: of those made to confirm, None without any."""

    ordinal: int
    figure: float
    rerun: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    seen: tuple[Seen, ...] = ()
    controls: tuple[float, ...] = ()  # log ratios
    levels: tuple[int, ...] = (0,)  # indices into `seen`, the last is the present one
    open: tuple[Change, ...] = ()
    last_ordinal: int | None = None  # of any night, fit or not
    is_told_noisy: bool = False

    @property
    def start(self) -> int:
        return self.levels[-1]

    def with_night(self, night: Night, rules: Rules) -> Memory:
        """Forgets nights of earlier levels first. Of a present level that is longer than twice that, it forgets those
        after its beginning: the beginning is what a drift of months is compared with."""
        seen = (*self.seen, seen_of(night))
        forgotten = max(0, min(len(seen) - rules.memory_nights, self.start))
        levels = tuple(sorted({max(0, at - forgotten) for at in self.levels}))
        seen = seen[forgotten:]
        kept = levels[-1] + rules.learning_nights
        seen = seen[:kept] + seen[kept + max(0, len(seen) - levels[-1] - 2 * rules.memory_nights) :]
        per_night = max(1, len(night.control))
        controls = (*self.controls, *map(math.log, night.control))[-rules.memory_nights * per_night :]
        return replace(self, seen=seen, controls=controls, levels=levels, last_ordinal=night.ordinal)

    def with_level(self, at: int) -> Memory:
        return replace(self, levels=(*(level for level in self.levels if level < at), at))

    def aligned(self) -> FloatArray:
        """All figures, those of earlier levels moved onto the present one.

        A level that has just begun knows nothing of the noise by itself, and no order of four nights is unlikely: what
        earlier nights did around their own level is what this one can be expected to do.
        """
        figures = np.array([each.figure for each in self.seen])
        if len(self.levels) == 1:
            return figures
        anchor = middle(figures[self.start : self.start + ANCHOR_NIGHTS])
        for begin, end in pairwise(self.levels):
            figures[begin:end] += anchor - middle(figures[begin:end])
        return figures

    def ordinals(self) -> Sequence[int]:
        return [each.ordinal for each in self.seen]


def seen_of(night: Night) -> Seen:
    rerun = math.log(median(night.rerun)) if night.rerun else None
    return Seen(night.ordinal, math.log(median((*night.values, *night.rerun))), rerun)
