"""What an op costs. Two users, two objects: the simulator's `CostTable` is the truth of a run, a policy's `Predictor`
is its belief. If they were one, predictive policies would be judged with perfect foresight.

Plain numbers only: the catalogue (engines/hardware) and the model shapes (engines/model) are turned into these by
harness/build.py.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from engines.core.placement import Part
from engines.core.types import Batch, Move, Tier, Unit


class Work(NamedTuple):  # several per step: a frozen dataclass takes four times as long to make
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
    """Seconds of each part of a step, per layer where a layer is meant: beside whatever the other units do meanwhile,
    for that is when most is asked.
    """

    @property
    def alone(self) -> "CostTable":
        """The same while host and accelerator do not work side by side; itself where that makes no difference."""

    @property
    def accel_slowdown(self) -> float:
        """What the accelerator takes beside the host's work, in times of what it takes alone."""

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


class PlacedCosts(CostTable, Protocol):
    """The same where weights are placed: matrix by matrix, `share` of the columns of some of a layer's matrices."""

    @property
    def widths(self) -> Mapping[Part, tuple[int, int]]:
        """Inputs and outputs of each matrix."""

    def matrix_s(self, parts: Sequence[Part], share: float, rows: int) -> float: ...

    def host_matrix_s(self, parts: Sequence[Part], share: float, rows: int) -> float: ...

    def weights_s(self, parts: Sequence[Part], share: float, unit: Unit, *, packed: bool) -> float:
        """Over the link (H2D) or from disk."""

    def unpack_s(self, parts: Sequence[Part], share: float) -> float:
        """From 4 bit to what a matrix product takes, on the accelerator."""

    def rows_s(self, values_per_row: float, rows: int, target: Tier) -> float:
        """Small rows over the link."""

    def next_stage_s(self, rows: int) -> float:
        """Hidden state of so many rows, from one accelerator to the next."""

    def host_prompts_s(self, work: Work) -> float:
        """Attention of prompt rows on the host."""

    def kv_on_disk_s(self, tokens: int, *, writes: bool) -> float:
        """KV of one layer."""


def link_unit(move: Move) -> Unit:
    return Unit.D2H if move.target is Tier.HOST else Unit.H2D
