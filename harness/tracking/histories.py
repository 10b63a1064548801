"""Simulated nightly histories, and how often the judgement is wrong or late on them: the rates that are published.

A night has a deviation of its own, which its reruns share, and its repeats differ besides; both with the given noise,
so that the median of three repeats is 1.2 times as noisy as `noise` says. Reruns are drawn when the judgement asks for
them, as the nightly command does. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from harness.stats import FloatArray
from harness.tracking.judgement import step
from harness.tracking.memory import Memory
from harness.tracking.outcome import Ack, State, Verdict
from harness.tracking.rules import DEFAULT, Rules
from harness.tracking.series import Night, Series, TrackedCell

FIRST_DAY = 739_617  # 2026-01-01
REPEATS = 3
LEVEL = 1000.0
PERSISTENCE = 0.6  # how much of a night's deviation is left the next, in autocorrelated noise
FREEDOM = 3  # Student's t: the fewest degrees with a variance
CELL = TrackedCell("nightly", "chat", "apex", "simulated")
SERIES = Series(CELL, "output_tokens_per_s", True, ())


class Kind(StrEnum):
    NORMAL = "normal"
    HEAVY_TAILED = "student t, 3 degrees"
    AUTOCORRELATED = "AR(1), 0.6"


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Nothing changes in these histories, so whatever is told is false. Shares are of nights past learning."""

    kind: Kind
    noise: float
    histories: int
    nights: int  # of a history
    judged: int  # nights past learning, in all
    regressions: int
    improvements: int
    with_any: int  # histories in which anything was told
    reruns: int

    @property
    def alert_share(self) -> float:
        """Of nights with an alert: a regression told for the first time."""
        return self.regressions / self.judged

    @property
    def told_share(self) -> float:
        """Of nights on which anything was told, improvements included."""
        return (self.regressions + self.improvements) / self.judged


@dataclass(frozen=True, slots=True)
class Detections:
    """A step that is there. `in_time`: told within `within` nights, the first with the new level counted as one."""

    kind: Kind
    noise: float
    size: float
    histories: int
    within: int
    in_time: int
    ever: int

    @property
    def share(self) -> float:
        return self.in_time / self.histories


Rerun = Callable[[int], tuple[float, ...]]


def play(
    nights: Sequence[Night], reruns: Rerun, acks: Sequence[Ack] = (), series: Series = SERIES, rules: Rules = DEFAULT
) -> list[Verdict]:
    """The nightly command over a history: where a rerun is asked for, it is made, and the night is judged again."""
    memory, told = Memory(), []
    for index, night in enumerate(nights):
        after, verdict = step(memory, night, series, acks, rules)
        if verdict.wants_rerun:
            after, verdict = step(memory, replace(night, rerun=reruns(index)), series, acks, rules)
        memory = after
        told.append(verdict)
    return told


def simulated(
    levels: FloatArray, noise: float, rng: np.random.Generator, kind: Kind = Kind.NORMAL
) -> tuple[list[Night], Rerun]:
    """Nights around the given levels (1 is no change), and what a rerun of a night would give."""
    size = levels.size
    centres = LEVEL * levels * np.exp(noise * _deviations(size, rng, kind))
    first, again = (centres[:, np.newaxis] * np.exp(noise * rng.standard_normal((size, REPEATS))) for _ in range(2))
    control = np.exp(noise * np.sqrt(2) * rng.standard_normal(size))
    nights = [
        Night(FIRST_DAY + index, tuple(first[index].tolist()), (float(control[index]),), "simulated")
        for index in range(size)
    ]
    return nights, lambda index: tuple(again[index].tolist())


def false_alarm_rate(
    histories: int, nights: int, noise: float, seed: int, kind: Kind = Kind.NORMAL, rules: Rules = DEFAULT
) -> FalseAlarms:
    rng = np.random.default_rng(seed)
    regressions = improvements = with_any = reruns = 0
    for _ in range(histories):
        made, again = simulated(np.ones(nights), noise, rng, kind)
        asked: list[int] = []
        verdicts = play(made, _counted(again, asked), rules=rules)
        states = [verdict.state for verdict in verdicts]
        bad, good = states.count(State.ALERT), states.count(State.IMPROVEMENT)
        regressions, improvements = regressions + bad, improvements + good
        with_any, reruns = with_any + bool(bad + good), reruns + len(asked)
    judged = histories * max(nights - rules.learning_nights, 0)
    return FalseAlarms(kind, noise, histories, nights, judged, regressions, improvements, with_any, reruns)


def detection_rate(
    histories: int,
    size: float,
    noise: float,
    seed: int,
    within: int = 3,
    kind: Kind = Kind.NORMAL,
    nights: int = 40,
    rules: Rules = DEFAULT,
) -> Detections:
    """A step of `size` (-0.05: 5 % less throughput) on a night drawn from the 21st on, followed to the end."""
    rng = np.random.default_rng(seed)
    in_time = ever = 0
    for _ in range(histories):
        begin = int(rng.integers(20, nights - within))
        levels = np.ones(nights)
        levels[begin:] += size
        made, again = simulated(levels, noise, rng, kind)
        verdicts = play(made, again, rules=rules)
        found = [index for index, each in enumerate(verdicts) if each.state is State.ALERT and index > begin]
        in_time += bool(found) and found[0] < begin + within
        ever += bool(found)
    return Detections(kind, noise, size, histories, within, in_time, ever)


def _deviations(size: int, rng: np.random.Generator, kind: Kind) -> FloatArray:
    """Of variance 1."""
    if kind is Kind.HEAVY_TAILED:
        heavy: FloatArray = rng.standard_t(FREEDOM, size) / np.sqrt(FREEDOM / (FREEDOM - 2))
        return heavy
    fresh = rng.standard_normal(size)
    if kind is Kind.AUTOCORRELATED:
        for index in range(1, size):
            fresh[index] = PERSISTENCE * fresh[index - 1] + np.sqrt(1 - PERSISTENCE**2) * fresh[index]
    return fresh


def _counted(again: Rerun, asked: list[int]) -> Rerun:
    def rerun(index: int) -> tuple[float, ...]:
        asked.append(index)
        return again(index)

    return rerun
