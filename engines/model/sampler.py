"""From logits to token ids: greedy, or drawn by seed and position alone.

A request's tokens must not depend on which other requests share its batch, so there is no running generator here:
the one random number a token needs is a hash of the request's seed and the token's position.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.model.errors import ModelError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a request draws its tokens. Temperature 0 is greedy; top_k 0 and top_p 1 leave all tokens in."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ModelError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if self.top_k < 0:
            raise ModelError(f"top_k must be 0 (all tokens) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ModelError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


def sample(logits: Tensor, samplings: Sequence[Sampling], positions: Sequence[int]) -> list[int]:
    """logits [rows, vocab] float32, with the sampling of each row and the position its new token will have."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for row, (sampling, position) in enumerate(zip(samplings, positions, strict=True)):
        if not sampling.greedy:
            tokens[row] = _draw(logits[row], sampling, uniform(sampling.seed, position))
    return tokens


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for this seed and position, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def _draw(logits: Tensor, sampling: Sampling, drawn: float) -> int:
    """logits [vocab]. Walk the kept tokens from the likeliest down until their probability reaches the drawn share."""
    scaled, tokens = (logits.double() / sampling.temperature).sort(descending=True, stable=True)
    if sampling.top_k:
        scaled = scaled[: sampling.top_k]
    cumulative = scaled.softmax(dim=-1).cumsum(dim=-1)
    if sampling.top_p < 1.0:
        # The smallest set that reaches top_p: the token that crosses the line is still in.
        cumulative = cumulative[: int((cumulative < sampling.top_p).sum()) + 1]
    choice = int(torch.searchsorted(cumulative, drawn * cumulative[-1], right=True))
    return int(tokens[min(choice, len(cumulative) - 1)])
