"""Seeded histories for the tests: levels in, verdicts out, as the nightly command would have had them."""

from __future__ import annotations

import numpy as np

from harness.stats import FloatArray
from harness.tracking.histories import FIRST_DAY, play, simulated
from harness.tracking.outcome import Ack, State, Verdict

TOLD = (State.ALERT, State.IMPROVEMENT)
NOISE = 0.01


def flat(nights: int = 60) -> FloatArray:
    return np.ones(nights)


def stepped(at: int, size: float, nights: int = 60) -> FloatArray:
    levels = flat(nights)
    levels[at:] *= 1 + size
    return levels


def verdicts(levels: FloatArray, seed: int = 0, noise: float = NOISE, acks: tuple[Ack, ...] = ()) -> list[Verdict]:
    nights, reruns = simulated(levels, noise, np.random.default_rng(seed))
    return play(nights, reruns, acks)


def told(found: list[Verdict]) -> list[Verdict]:
    return [each for each in found if each.state in TOLD]


def night_of(verdict: Verdict) -> int:
    """Its index in the history."""
    return verdict.ordinal - FIRST_DAY
