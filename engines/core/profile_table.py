"""A cost table made of measurements: what `harness profile` found on a machine, interpolated. The model's counterpart.

Not here: measuring (harness/profile_rig.py), and the file that it is kept in (harness/profile_file.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from engines.core.cost import Work
from engines.core.curves import Cells, Curve, Knots, Surface
from engines.core.types import Move, Tier


@dataclass(frozen=True, slots=True)
class Measurements:
    """Seconds, as the ops of pipeline.py are cut; of one layer where a layer is meant."""

    first: Knots  # over tokens: the rows as tensors, embedding, pre-attention of the first layer
    between: Knots  # over tokens
    last: Knots  # over tokens, when nobody samples: post-attention of the last layer
    head: Knots  # over sampled rows
    decode: Cells  # (rows, context of each)
    prefill: Cells  # (length, start)
    host: Cells  # (rows, context of each) on the host's cores; may be empty
    to_host: Knots  # over tokens of one request, all layers
    to_accel: Knots
    step_overhead_s: float
    token_overhead_s: float
    layers: int
    decode_beside_prompts: Cells | None = None  # what (rows, context) add to prompts in one kernel; None: as if alone


class UnmeasuredError(ValueError):
    """A policy asks for what was not there to be measured."""


class ProfileTable:
    """`CostTable` and `Predictor`. A token is a token: nothing is scaled here."""

    def __init__(self, measured: Measurements) -> None:
        self._step_overhead_s, self._token_overhead_s = measured.step_overhead_s, measured.token_overhead_s
        self._layers = measured.layers
        self.pre_attention_s = _seconds(measured.first)
        self.post_attention_s = _seconds(measured.last)
        self.linear_s = _seconds(measured.between)
        self.head_s = _seconds(measured.head)
        self._decode, self._prefill = Surface(measured.decode), Surface(measured.prefill)
        beside = measured.decode_beside_prompts
        self._beside = Surface(beside) if beside else self._decode
        self._host = Surface(measured.host) if measured.host else None
        self._links = {Tier.HOST: _seconds(measured.to_host), Tier.ACCEL: _seconds(measured.to_accel)}

    @property
    def alone(self) -> "ProfileTable":
        """What was measured alone is all that this table has."""
        return self

    @property
    def accel_slowdown(self) -> float:
        return 1.0

    @property
    def step_overhead_s(self) -> float:
        return self._step_overhead_s

    @property
    def token_overhead_s(self) -> float:
        return self._token_overhead_s

    def gemm_rows(self, work: Work) -> int:
        return work.tokens

    def accel_attention_s(self, work: Work) -> float:
        """Rows of unequal contexts cost what as many of their mean do: the kernel reads each row's KV once."""
        rows = work.decode_rows
        decode = self._beside if work.prefill_tokens else self._decode
        seconds = decode.at(rows)(work.decode_kv_tokens / rows) if rows else 0.0
        if work.prefill_tokens:
            # Whoever asks what-if may have counted tokens only: then it is one chunk.
            chunks = work.chunks or ((work.prefill_tokens, work.prefill_kv_tokens - work.prefill_tokens),)
            for length, start in chunks:
                seconds += self._prefill.at(length)(start)
        return seconds

    def host_attention_s(self, rows: int, kv_tokens: int) -> float:
        if not rows:
            return 0.0
        if self._host is None:
            raise UnmeasuredError("the profile has no host attention: there was no core beside the accelerator's")
        return self._host.at(rows)(kv_tokens / rows)

    def move_s(self, move: Move) -> float:
        return self._links[move.target](move.tokens)

    def rows_to_host_s(self, rows: int) -> float:
        return self.kv_to_host_s(rows)  # a query beside key and value: small copies cost their latency

    def rows_to_accel_s(self, rows: int) -> float:
        return self.kv_to_accel_s(rows)

    def kv_to_host_s(self, tokens: int) -> float:
        return self._links[Tier.HOST](tokens) / self._layers

    def kv_to_accel_s(self, tokens: int) -> float:
        return self._links[Tier.ACCEL](tokens) / self._layers


def _seconds(knots: Knots) -> Callable[[int], float]:
    """Nothing takes no time. Counts recur from step to step, so each is looked up once."""
    curve = Curve.fit(knots)

    @lru_cache(8192)
    def seconds(count: int) -> float:
        return curve(count) if count else 0.0

    return seconds
