"""Seeded streams of random numbers, one per purpose, so that changing one thing leaves the others as they were.

A stream is a function of (seed, purpose, index) only. It has no length: asking for more numbers extends it, so the
first requests of a longer workload are those of the shorter one. Built on the raw output of a bit generator because
numpy promises to keep that the same between versions, which it does not for the methods of `Generator`.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from workloads.types import WorkloadError


class Purpose(IntEnum):
    """Part of the seed: renumbering changes every workload ever published."""

    PROMPT_LENGTH = 1
    OUTPUT_LENGTH = 2
    ARRIVAL = 3
    THINK_TIME = 4
    REQUEST_TOKENS = 5
    SESSION_TOKENS = 6


def bit_generator(seed: int, purpose: Purpose, index: int = 0) -> np.random.PCG64:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise WorkloadError(f"seed must be a whole number, 0 or more, not {seed!r}")
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(int(purpose), index)))


def uniforms(seed: int, purpose: Purpose, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1), the 53 upper bits of each raw word."""
    return (_raw(seed, purpose, 0, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def whole_numbers(seed: int, purpose: Purpose, index: int, count: int, low: int, high: int) -> NDArray[np.int64]:
    """`count` integers in [low, high). The bias of a plain remainder is below 2**-32 for any vocabulary."""
    words = _raw(seed, purpose, index, count) % np.uint64(high - low)
    return words.astype(np.int64) + low


def _raw(seed: int, purpose: Purpose, index: int, count: int) -> NDArray[np.uint64]:
    return np.asarray(bit_generator(seed, purpose, index).random_raw(count), dtype=np.uint64)
