"""A belief that is wrong on purpose: a cost table whose answers are off by known factors, and by noise.

A policy is handed this instead of the table itself; what ops really take stays what it is. So how much a scheduler
loses by a bad prediction can be measured. Not here: where the factors come from (harness/prediction_error.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import cast

from engines.core.cost import CostTable, PlacedCosts, Work
from engines.core.placement import Part
from engines.core.types import Move, Tier, Unit


@dataclass(frozen=True, slots=True)
class Skew:
    """Times what is true. `noise`: the standard deviation of the logarithm of one more factor, drawn for each op at
    each power of two of its size and interpolated: as if it came from a profile with so much noise in its points.
    """

    host_attention: float = 1.0
    host_linear: float = 1.0
    accel_attention: float = 1.0
    accel_linear: float = 1.0
    links: float = 1.0
    disk: float = 1.0
    overhead: float = 1.0
    noise: float = 0.0
    seed: int = 0

    @property
    def is_none(self) -> bool:
        return self == Skew(seed=self.seed)


def skewed(truth: CostTable, skew: Skew) -> CostTable:
    """The table itself where nothing is skewed."""
    if skew.is_none:
        return truth
    return SkewedPlacedCosts(truth, skew) if hasattr(truth, "weights_s") else SkewedCosts(truth, skew)


class SkewedCosts:
    def __init__(self, truth: CostTable, skew: Skew) -> None:
        self._truth, self._skew = truth, skew
        self._noise = lru_cache(4096)(self._noise_of)
        alone = truth.alone
        self.alone: CostTable = self if alone is truth else skewed(alone, skew)
        self.pre_attention_s = lru_cache(4096)(self._pre_attention_s)
        self.post_attention_s = lru_cache(4096)(self._post_attention_s)
        self.linear_s = lru_cache(4096)(self._linear_s)
        self.head_s = lru_cache(4096)(self._head_s)

    @property
    def accel_slowdown(self) -> float:
        return self._truth.accel_slowdown

    @property
    def step_overhead_s(self) -> float:
        return self._truth.step_overhead_s * self._skew.overhead * self._noise("step_overhead", 1)

    @property
    def token_overhead_s(self) -> float:
        return self._truth.token_overhead_s * self._skew.overhead * self._noise("token_overhead", 1)

    def gemm_rows(self, work: Work) -> int:
        return self._truth.gemm_rows(work)

    def accel_attention_s(self, work: Work) -> float:
        size = work.decode_kv_tokens + work.prefill_kv_tokens
        return self._truth.accel_attention_s(work) * self._skew.accel_attention * self._noise("accel_attention", size)

    def host_attention_s(self, rows: int, kv_tokens: int) -> float:
        factor = self._skew.host_attention * self._noise("host_attention", kv_tokens)
        return self._truth.host_attention_s(rows, kv_tokens) * factor

    def move_s(self, move: Move) -> float:
        return self._truth.move_s(move) * self._link("down" if move.target is Tier.HOST else "up", move.tokens)

    def rows_to_host_s(self, rows: int) -> float:
        return self._truth.rows_to_host_s(rows) * self._link("down", rows)

    def rows_to_accel_s(self, rows: int) -> float:
        return self._truth.rows_to_accel_s(rows) * self._link("up", rows)

    def kv_to_host_s(self, tokens: int) -> float:
        return self._truth.kv_to_host_s(tokens) * self._link("down", tokens)

    def kv_to_accel_s(self, tokens: int) -> float:
        return self._truth.kv_to_accel_s(tokens) * self._link("up", tokens)

    def _pre_attention_s(self, tokens: int) -> float:
        return self._truth.pre_attention_s(tokens) * self._linear("pre_attention", tokens)

    def _post_attention_s(self, tokens: int) -> float:
        return self._truth.post_attention_s(tokens) * self._linear("post_attention", tokens)

    def _linear_s(self, tokens: int) -> float:
        return self._truth.linear_s(tokens) * self._linear("linear", tokens)

    def _head_s(self, sampled: int) -> float:
        return self._truth.head_s(sampled) * self._linear("head", sampled)

    def _linear(self, op: str, rows: int) -> float:
        return self._skew.accel_linear * self._noise(op, rows)

    def _link(self, way: str, tokens: int) -> float:
        return self._skew.links * self._noise(way, tokens)

    def _noise_of(self, op: str, size: int) -> float:
        """Between two powers of two the deviates of both, mixed so that their spread stays the same."""
        skew = self._skew
        if not skew.noise:
            return 1.0
        octave = math.log2(max(size, 1))
        below = int(octave)
        share = octave - below
        mixed = (1 - share) * deviate(skew.seed, op, below) + share * deviate(skew.seed, op, below + 1)
        return math.exp(skew.noise * mixed / math.hypot(1 - share, share))


class SkewedPlacedCosts(SkewedCosts):
    """Where weights are placed."""

    @property
    def _placed(self) -> PlacedCosts:
        return cast(PlacedCosts, self._truth)

    @property
    def widths(self) -> Mapping[Part, tuple[int, int]]:
        return self._placed.widths

    def matrix_s(self, parts: Sequence[Part], share: float, rows: int) -> float:
        return self._placed.matrix_s(parts, share, rows) * self._linear("matrix", rows)

    def host_matrix_s(self, parts: Sequence[Part], share: float, rows: int) -> float:
        factor = self._skew.host_linear * self._noise("host_matrix", rows)
        return self._placed.host_matrix_s(parts, share, rows) * factor

    def weights_s(self, parts: Sequence[Part], share: float, unit: Unit, *, packed: bool) -> float:
        factor = self._link("weights", 1) if unit is Unit.H2D else self._disk("read", 1)
        return self._placed.weights_s(parts, share, unit, packed=packed) * factor

    def unpack_s(self, parts: Sequence[Part], share: float) -> float:
        return self._placed.unpack_s(parts, share) * self._linear("unpack", 1)

    def rows_s(self, values_per_row: float, rows: int, target: Tier) -> float:
        factor = self._link("down" if target is Tier.HOST else "up", rows)
        return self._placed.rows_s(values_per_row, rows, target) * factor

    def next_stage_s(self, rows: int) -> float:
        return self._placed.next_stage_s(rows) * self._link("next_stage", rows)

    def host_prompts_s(self, work: Work) -> float:
        factor = self._skew.host_attention * self._noise("host_prompts", work.prefill_kv_tokens)
        return self._placed.host_prompts_s(work) * factor

    def kv_on_disk_s(self, tokens: int, *, writes: bool) -> float:
        return self._placed.kv_on_disk_s(tokens, writes=writes) * self._disk("write" if writes else "read", tokens)

    def _disk(self, way: str, tokens: int) -> float:
        return self._skew.disk * self._noise(f"disk_{way}", tokens)


@lru_cache(maxsize=4096)
def deviate(seed: int, op: str, octave: int) -> float:
    """Of a normal distribution; always the same of the same."""
    digest = blake2b(f"{seed}/{op}/{octave}".encode(), digest_size=16).digest()
    first, second = (int.from_bytes(digest[at : at + 8], "big") for at in (0, 8))
    radius = math.sqrt(-2.0 * math.log((first + 1) / 2**64))
    return radius * math.cos(2.0 * math.pi * second / 2**64)
