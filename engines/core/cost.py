"""What an op costs. Two users, two objects: the simulator's `CostTable` is the truth of a run, a policy's `Predictor`
is its belief. If they were one, predictive policies would be judged with perfect foresight.

Plain numbers only: the catalogue (engines/hardware) and the model shapes (engines/model) are turned into these by
harness/build.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from engines.core.types import Batch, Move, Tier, Unit


@dataclass(frozen=True, slots=True)
class Work:
    """What one batch asks of one layer."""

    tokens: int = 0
    decode_rows: int = 0
    decode_kv_tokens: int = 0
    host_rows: int = 0
    host_kv_tokens: int = 0
    prefill_tokens: int = 0
    prefill_kv_tokens: int = 0  # context read by the prefill rows
    prefill_pairs: int = 0  # query-key pairs under the causal mask
    sampled: int = 0
    chunks: tuple[tuple[int, int], ...] = ()  # (length, start) of each prefill: measured tables price them one by one
    host_prefill_tokens: int = 0  # of them, those whose KV leaves for the host, layer by layer
    host_prefill_context: int = 0  # KV of their earlier chunks, which comes back for each layer


def work_of(batch: Batch) -> Work:
    decode_rows, host_rows = len(batch.decode_slots), len(batch.host_slots)
    chunks = [(chunk.length, chunk.start, chunk.samples, chunk.tier) for chunk in batch.prefills]
    return work_of_rows(
        decode_rows,
        sum(batch.decode_positions) + decode_rows,
        chunks,
        host_rows,
        sum(batch.host_positions) + host_rows,
    )


def work_of_rows(
    decode_rows: int,
    decode_kv_tokens: int,
    chunks: Sequence[tuple[int, int, bool, Tier]],  # length, start, whether it samples, where its KV goes
    host_rows: int = 0,
    host_kv_tokens: int = 0,
) -> Work:
    prefill_tokens = prefill_kv = pairs = samples = leaving = returning = 0
    for length, start, samples_one, tier in chunks:
        prefill_tokens += length
        prefill_kv += start + length
        pairs += length * start + length * (length + 1) // 2
        samples += samples_one
        if tier is Tier.HOST:
            leaving += length
            returning += start
    return Work(
        tokens=decode_rows + host_rows + prefill_tokens,
        decode_rows=decode_rows,
        decode_kv_tokens=decode_kv_tokens,
        host_rows=host_rows,
        host_kv_tokens=host_kv_tokens,
        prefill_tokens=prefill_tokens,
        prefill_kv_tokens=prefill_kv,
        prefill_pairs=pairs,
        sampled=decode_rows + host_rows + samples,
        chunks=tuple([(length, start) for length, start, _, _ in chunks]),
        host_prefill_tokens=leaving,
        host_prefill_context=returning,
    )


class CostTable(Protocol):
    """Seconds of each part of a step, per layer where a layer is meant."""

    @property
    def step_overhead_s(self) -> float:
        """Scheduler and launch time that no unit overlaps."""

    @property
    def token_overhead_s(self) -> float:
        """What each sampled token adds to it, after its step: commit, delivery, records."""

    def gemm_rows(self, work: Work) -> int:
        """How many rows of a matrix product this batch amounts to: its tokens, unless the workload is scaled down."""

    def pre_attention_s(self, tokens: int) -> float: ...

    def post_attention_s(self, tokens: int) -> float: ...

    def linear_s(self, tokens: int) -> float:
        """post-attention of one layer and pre-attention of the next, streamed together."""

    def accel_attention_s(self, work: Work) -> float: ...

    def host_attention_s(self, rows: int, kv_tokens: int) -> float: ...

    def head_s(self, sampled: int) -> float: ...

    def move_s(self, move: Move) -> float:
        """All layers of one request's KV over the link."""

    def rows_to_host_s(self, rows: int) -> float:
        """Query, key and value of decode rows, one layer."""

    def rows_to_accel_s(self, rows: int) -> float:
        """What attention made of them, one layer."""

    def kv_to_host_s(self, tokens: int) -> float:
        """KV of prompt tokens, one layer."""

    def kv_to_accel_s(self, tokens: int) -> float: ...


class Predictor(CostTable, Protocol):
    """A policy's belief about the same quantities. Structurally equal, never the same object as the simulator's."""


@dataclass(frozen=True, slots=True)
class ModelCosts:
    """Bytes and multiply-adds of one layer of one model in one dtype."""

    layers: int
    pre_parameters: int
    post_parameters: int
    head_parameters: int
    bytes_per_parameter: float
    kv_bytes_per_token: int  # one layer, keys and values
    attention_flops_per_pair: int  # 4 * query heads * head dim
    query_bytes_per_row: int  # one layer
    tokens_each: int = 1  # how many tokens of the modelled workload one prompt or KV token here stands for


@dataclass(frozen=True, slots=True)
class MachineRates:
    """Achieved rates, not peaks: the efficiencies are already in. Sources are in the machine's YAML."""

    gemm_bytes_per_s: float
    gemm_flops_per_s: float
    gemm_exponent: float
    gemm_fixed_s: float
    attention_bytes_per_s: float
    attention_fixed_s: float
    host_attention_bytes_per_s: float
    host_attention_fixed_s: float
    h2d_bytes_per_s: float
    d2h_bytes_per_s: float
    link_latency_s: float
    step_overhead_s: float


class Roofline:
    """t = ((bytes / B)^p + (flops / F)^p)^(1/p) + fixed, times one scale for emulating a machine in slow motion."""

    def __init__(self, model: ModelCosts, machine: MachineRates, time_scale: float = 1.0) -> None:
        self.model = model
        self.machine = machine
        self.time_scale = time_scale
        self._kv_bytes = model.kv_bytes_per_token * model.tokens_each
        self.pre_attention_s = lru_cache(4096)(self._pre_attention_s)
        self.post_attention_s = lru_cache(4096)(self._post_attention_s)
        self.linear_s = lru_cache(4096)(self._linear_s)
        self.head_s = lru_cache(4096)(self._head_s)
        self.rows_to_host_s = lru_cache(4096)(self._rows_to_host_s)
        self.rows_to_accel_s = lru_cache(4096)(self._rows_to_accel_s)

    @property
    def step_overhead_s(self) -> float:
        return self.machine.step_overhead_s * self.time_scale

    @property
    def token_overhead_s(self) -> float:
        return 0.0  # a catalogue's overhead is one number per step

    def gemm_rows(self, work: Work) -> int:
        return work.tokens + work.prefill_tokens * (self.model.tokens_each - 1)

    def accel_attention_s(self, work: Work) -> float:
        machine, model = self.machine, self.model
        seconds = 0.0
        if work.decode_rows:
            read = work.decode_kv_tokens * self._kv_bytes
            seconds += machine.attention_fixed_s + read / machine.attention_bytes_per_s
        if work.prefill_tokens:
            read = work.prefill_kv_tokens * self._kv_bytes
            flops = work.prefill_pairs * model.attention_flops_per_pair * model.tokens_each**2
            seconds += machine.attention_fixed_s + max(
                read / machine.attention_bytes_per_s, flops / machine.gemm_flops_per_s
            )
        return seconds * self.time_scale

    def host_attention_s(self, rows: int, kv_tokens: int) -> float:
        if not rows:
            return 0.0
        read = kv_tokens * self._kv_bytes
        machine = self.machine
        return (machine.host_attention_fixed_s + read / machine.host_attention_bytes_per_s) * self.time_scale

    def move_s(self, move: Move) -> float:
        rate = self.machine.d2h_bytes_per_s if move.target is Tier.HOST else self.machine.h2d_bytes_per_s
        return self._link_s(move.tokens * self._kv_bytes * self.model.layers, rate)

    def _rows_to_host_s(self, rows: int) -> float:
        row_bytes = self.model.query_bytes_per_row + self.model.kv_bytes_per_token
        return self._link_s(rows * row_bytes, self.machine.d2h_bytes_per_s)

    def _rows_to_accel_s(self, rows: int) -> float:
        return self._link_s(rows * self.model.query_bytes_per_row, self.machine.h2d_bytes_per_s)

    def kv_to_host_s(self, tokens: int) -> float:
        return self._link_s(tokens * self._kv_bytes, self.machine.d2h_bytes_per_s)

    def kv_to_accel_s(self, tokens: int) -> float:
        return self._link_s(tokens * self._kv_bytes, self.machine.h2d_bytes_per_s)

    def _link_s(self, moved: float, bytes_per_s: float) -> float:
        return (self.machine.link_latency_s + moved / bytes_per_s) * self.time_scale if moved else 0.0

    def _pre_attention_s(self, tokens: int) -> float:
        return self._gemm_s(self.model.pre_parameters, tokens)

    def _post_attention_s(self, tokens: int) -> float:
        return self._gemm_s(self.model.post_parameters, tokens)

    def _linear_s(self, tokens: int) -> float:
        return self._gemm_s(self.model.pre_parameters + self.model.post_parameters, tokens)

    def _head_s(self, sampled: int) -> float:
        return self._gemm_s(self.model.head_parameters, sampled) if sampled else 0.0

    def _gemm_s(self, parameters: int, tokens: int) -> float:
        if not tokens:
            return 0.0
        machine = self.machine
        memory_s = parameters * self.model.bytes_per_parameter / machine.gemm_bytes_per_s
        compute_s = 2 * parameters * tokens / machine.gemm_flops_per_s
        p = machine.gemm_exponent
        return float((memory_s**p + compute_s**p) ** (1 / p) + machine.gemm_fixed_s) * self.time_scale


def link_unit(move: Move) -> Unit:
    return Unit.D2H if move.target is Tier.HOST else Unit.H2D
