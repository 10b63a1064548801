"""Distributions of token counts, each the inverse of its cumulative distribution: a uniform number in, tokens out.

Not here: the numbers fitted to published traces (`fitted`). Writing every distribution as a map from a uniform number
keeps draws a function of the seed alone, whatever the distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workloads.streams import Purpose, uniforms
from workloads.types import MAX_TOKENS

Tokens = NDArray[np.int64]
Uniforms = NDArray[np.float64]


class Lengths(Protocol):
    def tokens(self, uniform: Uniforms) -> Tokens: ...  # [n] in [0, 1) -> [n], each at least 1


def whole_tokens(lengths: NDArray[np.float64]) -> Tokens:
    """Round to whole tokens; a request has at least one."""
    return np.clip(np.rint(lengths), 1, MAX_TOKENS).astype(np.int64)


def scaled(tokens: Tokens, scale: float) -> Tokens:
    """Shrink (or stretch) every length by one factor, so that a workload for a large model fits a small one."""
    return tokens if scale == 1.0 else whole_tokens(tokens.astype(np.float64) * scale)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Every request the same."""

    length: int

    def tokens(self, uniform: Uniforms) -> Tokens:
        return np.full(len(uniform), self.length, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Jittered:
    """Uniform within `jitter` (a fraction) of `length`, as papers that sweep one length do."""

    length: int
    jitter: float

    def tokens(self, uniform: Uniforms) -> Tokens:
        return whole_tokens(self.length * (1.0 + self.jitter * (2.0 * uniform - 1.0)))


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Log-normal, cut to [low, high]: for lengths of which only a typical size, a spread and a range are known."""

    median: float  # of the distribution before the cut
    sigma: float  # of the natural logarithm
    low: int
    high: int

    def tokens(self, uniform: Uniforms) -> Tokens:
        normal = NormalDist(math.log(self.median), self.sigma)
        below, upto = normal.cdf(math.log(self.low)), normal.cdf(math.log(self.high))
        # A range far out in a tail rounds to probability 0 or 1, which have no finite inverse.
        chances = np.clip(below + uniform * (upto - below), 1e-300, 1 - 2.0**-53)
        logs = [normal.inv_cdf(chance) for chance in chances.tolist()]
        return whole_tokens(np.clip(np.exp(logs), self.low, self.high))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Straight lines between points of a measured quantile function: any shape, several peaks included."""

    percents: tuple[float, ...]  # rising, 0 to 100
    lengths: tuple[int, ...]  # tokens at those percentiles

    @classmethod
    def parse(cls, text: str) -> Quantiles:
        """From "0:2 50:1020 100:14050": percentile and tokens."""
        knots = [knot.split(":") for knot in text.split()]
        return cls(tuple(float(percent) for percent, _ in knots), tuple(int(length) for _, length in knots))

    def tokens(self, uniform: Uniforms) -> Tokens:
        return whole_tokens(np.interp(uniform * 100.0, self.percents, self.lengths))


@dataclass(frozen=True, slots=True)
class Joint:
    """Prompt lengths, and output lengths that depend on the band the prompt falls in.

    `outputs[i]` serves prompts up to `bands[i]` tokens, the last one all that are longer; no bands means independent.
    """

    prompt: Lengths
    outputs: tuple[Lengths, ...]
    bands: tuple[int, ...] = ()

    def draw(self, count: int, seed: int) -> tuple[Tokens, Tokens]:
        """Prompt and output tokens of `count` requests."""
        prompts = self.prompt.tokens(uniforms(seed, Purpose.PROMPT_LENGTH, count))
        uniform = uniforms(seed, Purpose.OUTPUT_LENGTH, count)
        band = np.searchsorted(self.bands, prompts)
        outputs = np.empty(count, dtype=np.int64)
        for number, lengths in enumerate(self.outputs):
            inside = band == number
            outputs[inside] = lengths.tokens(uniform[inside])
        return prompts, outputs
