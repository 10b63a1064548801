"""What the ops of placed weights cost by a table: which rows, how wide, over which of its rates."""

from collections.abc import Mapping
from typing import cast

from engines.core.cost import CostTable, PlacedCosts, Work
from engines.core.errors import UnsupportedPlanError
from engines.core.ops import Op, OpKind, RowsOf
from engines.core.placement import Part
from engines.core.types import Tier, Unit

PACKED_SHARE = 4.5 / 16  # of 16-bit KV: a 4-bit code, and two numbers for every 64 of them
UNPACKING = 2.0 + PACKED_SHARE  # times the KV's bytes: codes are read, floats written, and those read


def placed_costs(costs: CostTable) -> PlacedCosts:
    """A profile of ops on a machine that held all weights knows nothing of these."""
    if not hasattr(costs, "weights_s"):
        raise UnsupportedPlanError("these costs say nothing of weights that are not on the accelerator")
    return cast(PlacedCosts, costs)


def work_of_rows_in(work: Work, rows: RowsOf) -> Work:
    """The part of a batch that an op works on."""
    if rows is RowsOf.DECODES:
        return work._replace(tokens=work.decode_rows, prefill_tokens=0, prefill_kv_tokens=0, prefill_pairs=0, chunks=())
    if rows is RowsOf.PROMPTS:
        return work._replace(tokens=work.prefill_tokens, decode_rows=0, decode_kv_tokens=0)
    return work


def placed_seconds_of(op: Op, whole: Work, costs: PlacedCosts) -> float:
    work = work_of_rows_in(whole, op.rows)
    match op.kind:
        case OpKind.READ_WEIGHTS:
            return costs.weights_s(op.parts, op.share, Unit.DISK, packed=op.packed)
        case OpKind.WEIGHTS_TO_ACCEL:
            return costs.weights_s(op.parts, op.share, Unit.H2D, packed=op.packed)
        case OpKind.MATRIX:
            unpacked_s = costs.unpack_s(op.parts, op.share) if op.packed else 0.0
            return unpacked_s + costs.matrix_s(op.parts, op.share, costs.gemm_rows(work))
        case OpKind.HOST_MATRIX:
            return costs.host_matrix_s(op.parts, op.share, costs.gemm_rows(work))
        case OpKind.ATTENTION:
            return costs.accel_attention_s(work) * (UNPACKING if op.packed else 1.0)
        case OpKind.IN_PLACE_ATTENTION:
            attention_s = costs.host_attention_s(work.decode_rows, work.decode_kv_tokens) + costs.host_prompts_s(work)
            return attention_s * (UNPACKING if op.packed else 1.0)
        case OpKind.KV_TO_HOST:
            return costs.kv_to_host_s(work.prefill_tokens) * (PACKED_SHARE if op.packed else 1.0)
        case OpKind.KV_TO_ACCEL:
            return costs.kv_to_accel_s(kv_before(work)) * (PACKED_SHARE if op.packed else 1.0)
        case OpKind.READ_KV:
            return costs.kv_on_disk_s(kv_read(work), writes=False)
        case OpKind.WRITE_KV:
            return costs.kv_on_disk_s(kv_written(work), writes=True)
        case OpKind.HEAD:
            return costs.head_s(work.sampled)
        case OpKind.NEXT_STAGE:
            return costs.next_stage_s(costs.gemm_rows(work))
        case _:
            return costs.rows_s(values_per_row(op, costs.widths), costs.gemm_rows(work), _target(op))


def values_per_row(op: Op, widths: Mapping[Part, tuple[int, int]]) -> float:
    """What crosses the link for each row."""
    match op.kind:
        case OpKind.HIDDEN_TO_HOST | OpKind.HIDDEN_TO_ACCEL | OpKind.NEXT_STAGE:
            return widths[Part.QKV][0]
        case OpKind.INPUT_TO_HOST | OpKind.INPUT_TO_ACCEL:
            return widths[op.parts[0]][0]
        case OpKind.OUTPUT_TO_ACCEL:
            return op.share * widths[op.parts[0]][1]
        case OpKind.QKV_TO_HOST | OpKind.ROWS_TO_HOST:
            return widths[Part.QKV][1]
        case OpKind.ROWS_TO_ACCEL:
            return widths[Part.OUTPUT][0]
    raise ValueError(f"{op.kind.value} carries no rows")


def _target(op: Op) -> Tier:
    to_host = op.kind in (OpKind.HIDDEN_TO_HOST, OpKind.INPUT_TO_HOST, OpKind.QKV_TO_HOST)
    return Tier.HOST if to_host else Tier.ACCEL


def kv_before(work: Work) -> int:
    """Tokens of the prompts' earlier chunks."""
    return work.prefill_kv_tokens - work.prefill_tokens


def kv_read(work: Work) -> int:
    """Tokens whose KV was there before the step."""
    return work.decode_kv_tokens - work.decode_rows + kv_before(work)


def kv_written(work: Work) -> int:
    return work.decode_rows + work.prefill_tokens
