"""Lowerings as text: what waits for what, and how long it takes on virtual units."""

import pytest

from engines.core.cost import work_of
from engines.core.errors import UnsupportedPlanError
from engines.core.ops import OpKind
from engines.core.pipeline import durations, lower, makespan, place
from engines.core.placement import ON_HOST, LayerPlacement, Placement
from engines.core.roofline import Roofline
from engines.core.types import Batch, BlockChanges, Mode, Move, PrefillChunk, StepPlan, Tier, Unit

from .worlds import MACHINE, MODEL

ON_ACCEL = Placement.all_on_accelerator(2)


def plan(batch: Batch, *moves: Move, mode: Mode = Mode.GPU_ONLY) -> StepPlan:
    return StepPlan(1, mode, (batch,), BlockChanges(), moves)


def test_gpu_only_is_one_chain() -> None:
    ops = lower(plan(Batch((0,), (5,))), ON_ACCEL).ops
    assert [f"{op.kind.value}@{op.layer} after {list(op.after)}" for op in ops] == [
        "first@0 after []",
        "attention@0 after [0]",
        "between@0 after [1]",
        "attention@1 after [2]",
        "last@1 after [3]",
    ]
    assert {op.unit for op in ops} == {Unit.GPU}


def test_moves_come_before_anything_that_writes() -> None:
    out = Move(1, Tier.ACCEL, (3,), Tier.HOST, (0,), 16)
    back = Move(2, Tier.HOST, (1,), Tier.ACCEL, (3,), 16)
    ops = lower(plan(Batch((0,), (5,)), out, back), ON_ACCEL).ops
    assert [(op.kind, op.unit, op.after) for op in ops[:3]] == [
        (OpKind.MOVE, Unit.D2H, ()),
        (OpKind.MOVE, Unit.H2D, (0,)),
        (OpKind.FIRST, Unit.GPU, (0, 1)),
    ]


def test_the_same_shape_is_lowered_once() -> None:
    assert lower(plan(Batch((0,), (5,))), ON_ACCEL) is lower(plan(Batch((1, 2), (7, 9))), ON_ACCEL)


def test_unsupported_combinations_are_refused() -> None:
    with pytest.raises(UnsupportedPlanError, match="no lowering for async_overlap with 1 batches and 0 cohorts"):
        lower(plan(Batch(), mode=Mode.ASYNC_OVERLAP), ON_ACCEL)
    with pytest.raises(UnsupportedPlanError, match="every layer on the accelerator"):
        lower(plan(Batch()), Placement((LayerPlacement.of(ON_HOST),)))


def test_makespan_of_a_chain_is_the_sum_of_its_ops() -> None:
    costs = Roofline(MODEL, MACHINE)
    step = plan(Batch((0, 1), (31, 15), (PrefillChunk(2, 9, 16, 8, True),)))
    program = lower(step, ON_ACCEL)
    seconds = durations(program, step, costs)
    work = work_of(step.batches[0])
    expected = (
        costs.pre_attention_s(10)
        + 2 * costs.accel_attention_s(work)
        + costs.linear_s(10)
        + costs.post_attention_s(10)
        + costs.head_s(3)
    )
    assert place(program, seconds, 1.0)[-1] == pytest.approx(1.0 + expected)


def test_the_short_cut_for_serial_programs_is_exact() -> None:
    out = Move(1, Tier.ACCEL, (3,), Tier.HOST, (0,), 16)
    costs = Roofline(MODEL, MACHINE)
    step = plan(Batch((0, 1), (31, 15)), out)
    program = lower(step, ON_ACCEL)
    seconds, busy_s = makespan(program, step, costs)
    assert program.serial
    assert seconds == pytest.approx(place(program, durations(program, step, costs), 0.0)[-1])
    assert busy_s[Unit.D2H] == pytest.approx(costs.move_s(out))


def test_work_counts_what_attention_reads() -> None:
    work = work_of(Batch((0, 1), (31, 15), (PrefillChunk(2, 9, 16, 8, True),)))
    assert (work.tokens, work.decode_kv_tokens, work.prefill_kv_tokens) == (10, 48, 24)
    assert work.prefill_pairs == sum(range(17, 25))
    assert work.sampled == 3
