"""What an op reads or carries: weights where rows meet a matrix, KV where they attend, what crosses link and disk.

Bytes of a model, not of a machine: the same whoever says what the op took. The rows of a matrix product are left out,
which are small beside its weights.
"""

from collections.abc import Callable
from functools import lru_cache

from engines.core.cost import Work
from engines.core.memory import ModelSizes
from engines.core.ops import Op, OpKind, RowsOf
from engines.core.packing import packed_bytes
from engines.core.placed import AFTER_ATTENTION
from engines.core.placed_cost import kv_before, kv_read, kv_written, values_per_row, work_of_rows_in
from engines.core.placement import Part
from engines.core.types import Move

ALL_PARTS = tuple(Part)

NAMES = {
    OpKind.MOVE: "KV over the link",
    OpKind.FIRST: "qkv",
    OpKind.ATTENTION: "attention",
    OpKind.ROWS_TO_HOST: "rows over the link",
    OpKind.HOST_ATTENTION: "attention",
    OpKind.ROWS_TO_ACCEL: "rows over the link",
    OpKind.PROMPT_TO_HOST: "KV over the link",
    OpKind.PROMPT_TO_ACCEL: "KV over the link",
    OpKind.BETWEEN: "output+up+down+qkv",
    OpKind.LAST: "output+up+down+head",
    OpKind.READ_WEIGHTS: "weights from disk",
    OpKind.WEIGHTS_TO_ACCEL: "weights over the link",
    OpKind.HIDDEN_TO_HOST: "rows over the link",
    OpKind.HIDDEN_TO_ACCEL: "rows over the link",
    OpKind.INPUT_TO_HOST: "rows over the link",
    OpKind.INPUT_TO_ACCEL: "rows over the link",
    OpKind.OUTPUT_TO_ACCEL: "rows over the link",
    OpKind.QKV_TO_HOST: "rows over the link",
    OpKind.IN_PLACE_ATTENTION: "attention",
    OpKind.KV_TO_HOST: "KV over the link",
    OpKind.KV_TO_ACCEL: "KV over the link",
    OpKind.READ_KV: "KV from disk",
    OpKind.WRITE_KV: "KV to disk",
    OpKind.HEAD: "head",
    OpKind.NEXT_STAGE: "rows between GPUs",
}

# Weights and nothing else: the same bytes whichever rows there are.
WEIGHTS_ONLY = frozenset(
    {
        OpKind.FIRST,
        OpKind.BETWEEN,
        OpKind.READ_WEIGHTS,
        OpKind.WEIGHTS_TO_ACCEL,
        OpKind.MATRIX,
        OpKind.HOST_MATRIX,
        OpKind.HEAD,
    }
)


def operator_of(op: Op) -> str:
    """Its name for a reader; matrices by their parts, fused ones by all of them. The unit tells the rest."""
    return NAMES.get(op.kind) or "+".join(part.value for part in op.parts)


def bytes_of(op: Op, whole: Work, moves: tuple[Move, ...], sizes: ModelSizes) -> float:
    """`whole`: of the op's batch."""
    work = work_of_rows_in(whole, op.rows)
    kv = sizes.kv_bytes_per_token
    match op.kind:
        case OpKind.BETWEEN:
            return _weights(ALL_PARTS, sizes)
        case OpKind.ATTENTION:
            return (work.decode_kv_tokens + work.prefill_kv_tokens) * kv
        case OpKind.HOST_ATTENTION:
            return work.host_kv_tokens * kv
        case OpKind.ROWS_TO_HOST | OpKind.ROWS_TO_ACCEL:
            return work.host_rows * values_per_row(op, sizes.widths) * sizes.bytes_per_parameter
        case OpKind.FIRST:
            return _weights((Part.QKV,), sizes)
        case OpKind.LAST:
            return _weights(AFTER_ATTENTION, sizes) + (sizes.head_bytes if work.sampled else 0)
        case OpKind.IN_PLACE_ATTENTION:
            return (work.decode_kv_tokens + work.prefill_kv_tokens) * kv
        case OpKind.MOVE:
            return moves[op.move].tokens * kv * sizes.layers
        case OpKind.PROMPT_TO_HOST:
            return work.host_prefill_tokens * kv
        case OpKind.PROMPT_TO_ACCEL:
            return work.host_prefill_context * kv
        case OpKind.READ_WEIGHTS | OpKind.WEIGHTS_TO_ACCEL | OpKind.MATRIX | OpKind.HOST_MATRIX:
            return op.share * _weights(op.parts, sizes, packed=op.packed)
        case OpKind.KV_TO_HOST:
            return work.prefill_tokens * kv
        case OpKind.KV_TO_ACCEL:
            return kv_before(work) * kv
        case OpKind.READ_KV:
            return kv_read(work) * kv
        case OpKind.WRITE_KV:
            return kv_written(work) * kv
        case OpKind.HEAD:
            return sizes.head_bytes
        case _:
            return work.tokens * values_per_row(op, sizes.widths) * sizes.bytes_per_parameter


def bytes_by_work(op: Op, sizes: ModelSizes) -> Callable[[Work], float]:
    """The same of an op that moves nothing, for whoever asks in every step: what to look at is found out once."""
    kv = sizes.kv_bytes_per_token
    match op.kind:
        case OpKind.ATTENTION if op.rows is RowsOf.ALL:
            return lambda work: (work.decode_kv_tokens + work.prefill_kv_tokens) * kv
        case OpKind.HOST_ATTENTION:
            return lambda work: work.host_kv_tokens * kv
        case OpKind.ROWS_TO_HOST | OpKind.ROWS_TO_ACCEL:
            values, each = values_per_row(op, sizes.widths), sizes.bytes_per_parameter
            return lambda work: work.host_rows * values * each
        case OpKind.LAST:
            weights, head = _weights(AFTER_ATTENTION, sizes), sizes.head_bytes
            return lambda work: weights + (head if work.sampled else 0)
        case _:
            return lambda work: bytes_of(op, work, (), sizes)


def _weights(parts: tuple[Part, ...], sizes: ModelSizes, *, packed: bool = False) -> int:
    return _of_matrices(parts, sizes.matrices, sizes.bytes_per_parameter, packed)


@lru_cache(maxsize=64)
def _of_matrices(
    parts: tuple[Part, ...], matrices: tuple[tuple[int, int], ...], bytes_per_parameter: int, packed: bool
) -> int:
    """Asked in every step, and always the same."""
    shapes = [matrices[index] for index, part in enumerate(Part) if part in parts]
    if packed:
        return sum(packed_bytes((outputs, inputs), dtype_bytes=bytes_per_parameter) for inputs, outputs in shapes)
    return sum(inputs * outputs for inputs, outputs in shapes) * bytes_per_parameter
