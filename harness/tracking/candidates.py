"""Whether the nights of a level show a change, how large, since when, and whether it is a step or a drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.stats import FloatArray, Interval
from harness.tracking.change_points import best_split, p_value
from harness.tracking.memory import Memory
from harness.tracking.noise import change_interval, control_spread, middle, spread, winsorised
from harness.tracking.outcome import Change, Shape
from harness.tracking.rules import Rules

TAIL = 2  # nights after a change; one bad night alone is none
CLIP = 4.0


@dataclass(frozen=True, slots=True)
class Bar:
    """As logarithms. `noise`: of one night; `height`: what a change must reach to be told."""

    noise: float
    height: float

    def relative(self) -> tuple[float, float]:
        return math.expm1(self.noise), math.expm1(self.height)


@dataclass(frozen=True, slots=True)
class Candidate:
    """`at`: the index at which a new level would begin. Log figures of both sides; `towards` is +1 or -1."""

    shape: Shape
    at: int
    since: int
    before: FloatArray
    after: FloatArray
    bar: Bar
    p: float

    @property
    def level(self) -> float:
        return middle(self.before)

    @property
    def towards(self) -> float:
        return math.copysign(1.0, middle(self.after) - self.level)


def bar_over(figures: FloatArray, memory: Memory, rules: Rules, factor: float | None = None) -> Bar:
    """The larger of two noises: nights around their level, and the same code against itself, of which a ratio has two
    runs' noise. The control cannot see what differs from night to night; nights are blind to it while they are few."""
    noise = max(spread(figures), control_spread(memory.controls) / math.sqrt(2))
    return Bar(noise, max(math.log1p(rules.min_effect), (factor or rules.floor_factor) * noise))


def find_candidate(memory: Memory, figures: FloatArray, rules: Rules) -> Candidate | None:
    """`figures`: memory.aligned(). A significant change that reaches the bar and that the last night still shows."""
    first, last = memory.start + rules.level_nights, figures.size - TAIL
    clipped = winsorised(figures, CLIP)
    split = best_split(clipped, first, last)
    if split is None:
        return None
    found = _step(memory, figures, split.at, rules) or _drift(memory, figures, rules)
    if found is None:
        return None
    shape, at, since, before, after, bar = found
    p = p_value(clipped, split, first, last, rules.significance)
    return Candidate(shape, at, since, before, after, bar, p) if p <= rules.significance else None


def is_beyond(value: float, level: float, towards: float, bar: Bar, share: float = 0.5) -> bool:
    """On the side that `towards` says, by that share of the bar: a single night or rerun is not asked for all of it,
    because half of those at a change of just the bar's size are below it."""
    return towards * (value - level) >= share * bar.height


def to_change(found: Candidate, memory: Memory, higher_is_better: bool) -> Change:
    size = change_interval(found.before, found.after)
    return Change(
        shape=found.shape,
        ordinal=memory.seen[found.at].ordinal,
        since=memory.seen[found.since].ordinal,
        size=Interval(*(math.expm1(part) for part in (size.value, size.low, size.high))),
        before=math.exp(found.level),
        after=math.exp(middle(found.after)),
        nights=found.after.size,
        p=found.p,
        is_worse=(size.value < 0) is higher_is_better,
    )


_Found = tuple[Shape, int, int, FloatArray, FloatArray, Bar]


def _step(memory: Memory, figures: FloatArray, at: int, rules: Rules) -> _Found | None:
    """A slope is given to the drift: half of it is no level, and its date would be the middle of nowhere."""
    level = figures[memory.start :]
    before, after = figures[memory.start : at], figures[at:]
    factor = rules.hasty_factor if after.size == TAIL else rules.floor_factor
    bar = bar_over(figures[:at], memory, rules, factor)
    if not _is_change(before, after, bar) or (_is_slope(level, at - memory.start) and _drift(memory, figures, rules)):
        return None
    return Shape.STEP, at, at, before, after, bar


def _drift(memory: Memory, figures: FloatArray, rules: Rules) -> _Found | None:
    """The latest nights against the oldest of the level, some weeks before: 0.2 % a night is never a step."""
    ordinals = memory.ordinals()
    limit = ordinals[-1] - rules.drift_days
    old = [at for at in range(memory.start, len(ordinals)) if ordinals[at] <= limit][: rules.drift_nights]
    at = figures.size - rules.drift_nights
    if len(old) < rules.drift_nights or at <= old[-1]:
        return None
    before, after = figures[old[0] : old[-1] + 1], figures[at:]
    bar = bar_over(_without_slope(figures[memory.start :]), memory, rules)
    if not _is_change(before, after, bar) or not _is_slope(figures[memory.start :], None):
        return None
    return Shape.DRIFT, at, old[0], before, after, bar


def _is_change(before: FloatArray, after: FloatArray, bar: Bar) -> bool:
    level, effect = middle(before), middle(after) - middle(before)
    return abs(effect) >= bar.height and is_beyond(float(after[-1]), level, math.copysign(1.0, effect), bar)


def _is_slope(level: FloatArray, at: int | None) -> bool:
    """Whether a line leaves less unexplained than the best step; `at` None tries every step of two nights or more."""
    line = float(np.square(_without_slope(level)).sum())
    steps = range(TAIL, level.size - TAIL + 1) if at is None else (at,)
    return line < min(_around_steps(level, each) for each in steps)


def _around_steps(level: FloatArray, at: int) -> float:
    return sum(float(np.square(side - side.mean()).sum()) for side in (level[:at], level[at:]))


def _without_slope(level: FloatArray) -> FloatArray:
    nights = np.arange(level.size) - (level.size - 1) / 2
    slope = float(nights @ level) / max(float(nights @ nights), 1e-12)
    residuals: FloatArray = level - level.mean() - slope * nights
    return residuals
