"""The lowering of placed weights as text, and its times: what overlaps what, which buffer waits for whom, what is
refused.
"""

from dataclasses import replace

import pytest

from engines.core.errors import UnsupportedPlanError
from engines.core.ops import OpKind, Program
from engines.core.pipeline import durations, lower, makespan, place
from engines.core.placement import (
    FROM_DISK,
    ON_HOST,
    STREAMED,
    LayerPlacement,
    Part,
    Placement,
    PlacementError,
    Split,
)
from engines.core.roofline import Roofline
from engines.core.types import Batch, BlockChanges, Mode, Move, PrefillChunk, StepPlan
from engines.core.units import Tier, Unit
from tests.core.worlds import MACHINE, MODEL
from tests.placements import placements, whole

MATRICES = ((256, 768), (256, 256), (256, 1024), (512, 256))
RATES = replace(
    MACHINE,
    host_gemm_bytes_per_s=2e8,
    host_gemm_flops_per_s=1e10,
    disk_read_bytes_per_s=3e8,
    disk_write_bytes_per_s=2e8,
)
COSTS = Roofline(replace(MODEL, matrices=MATRICES), RATES)
DECODES = Batch((0, 1), (31, 15))
PROMPTS = Batch((), (), (PrefillChunk(2, 9, 16, 8, True), PrefillChunk(3, 10, 0, 8, False)))
MIXED = Batch((0, 1), (31, 15), PROMPTS.prefills)


def planned(*batches: Batch, moves: tuple[Move, ...] = ()) -> StepPlan:
    return StepPlan(1, Mode.PLACED, batches, BlockChanges(), moves)


def lowered(placement: Placement, *batches: Batch) -> Program:
    return lower(planned(*batches), placement)


def text(program: Program) -> list[str]:
    return [f"{op.index} {op.kind.value}@{op.layer} {op.unit.name} after {list(op.after)}" for op in program.ops]


def test_a_layer_loads_while_the_one_before_is_used() -> None:
    """Four layers: the third's weights need the buffer of the first's, and wait for its product."""
    program = lowered(whole(4, LayerPlacement(up=STREAMED)), DECODES)
    loads = [op for op in program.ops if op.kind is OpKind.WEIGHTS_TO_ACCEL]
    used = [op for op in program.ops if op.kind is OpKind.MATRIX and op.parts == (Part.UP,)]
    assert [load.after for load in loads] == [(), (), (used[0].index,), (used[1].index,)]
    assert all(load.index in use.after for load, use in zip(loads, used, strict=True))
    single = lowered(whole(4, LayerPlacement(up=STREAMED), buffers=1), DECODES)
    loads = [op for op in single.ops if op.kind is OpKind.WEIGHTS_TO_ACCEL]
    used = [op for op in single.ops if op.kind is OpKind.MATRIX and op.parts == (Part.UP,)]
    assert [load.after for load in loads] == [(), *[(use.index,) for use in used[:3]]]


def test_pinned_layers_take_no_turn_in_the_buffers() -> None:
    layers = (LayerPlacement(up=STREAMED), LayerPlacement(), LayerPlacement(up=STREAMED), LayerPlacement(up=STREAMED))
    program = lowered(Placement(layers), DECODES)
    loads = [op for op in program.ops if op.kind is OpKind.WEIGHTS_TO_ACCEL]
    first = next(op for op in program.ops if op.kind is OpKind.MATRIX and op.parts == (Part.UP,))
    assert [load.layer for load in loads] == [0, 2, 3]
    assert loads[2].after == (first.index,)


def test_a_layer_on_the_host_is_two_transfers_and_two_products() -> None:
    host = LayerPlacement.of(ON_HOST, Tier.HOST, Unit.CPU)
    assert text(lowered(Placement((host, LayerPlacement())), DECODES)) == [
        "0 hidden_to_host@0 D2H after []",
        "1 host_matrix@0 CPU after [0]",
        "2 in_place_attention@0 CPU after [1]",
        "3 host_matrix@0 CPU after [2]",
        "4 hidden_to_accel@1 H2D after [3]",
        "5 matrix@1 GPU after [4]",
        "6 attention@1 GPU after [5]",
        "7 matrix@1 GPU after [6]",
        "8 head@1 GPU after [7]",
    ]


def test_columns_are_computed_on_both_sides_at_once() -> None:
    half = Split(0.5, 0.0, 0.0, 0.5)
    ops = text(lowered(Placement((LayerPlacement(up=half),)), DECODES))
    assert ops[3:8] == [
        "3 input_to_host@0 D2H after [2]",
        "4 host_matrix@0 CPU after [3]",
        "5 matrix@0 GPU after [2]",
        "6 output_to_accel@0 H2D after [4]",
        "7 matrix@0 GPU after [5, 6]",
    ]


def test_prompts_here_and_decodes_there_run_side_by_side() -> None:
    program = lowered(whole(1, LayerPlacement(kv=Tier.HOST)), MIXED)
    by_kind = {(op.kind, op.rows.value): op for op in program.ops}
    host = by_kind[OpKind.IN_PLACE_ATTENTION, "decodes"]
    prompts = by_kind[OpKind.ATTENTION, "prompts"]
    assert prompts.index not in host.after
    assert host.index not in prompts.after
    assert by_kind[OpKind.KV_TO_ACCEL, "all"].index in prompts.after, "later chunks read earlier ones"


def test_lockstep_batches_share_what_a_layer_loads() -> None:
    program = lowered(whole(3, LayerPlacement.of(STREAMED)), DECODES, MIXED)
    assert sum(op.kind is OpKind.WEIGHTS_TO_ACCEL for op in program.ops) == 3 * 4
    third = next(op for op in program.ops if op.kind is OpKind.WEIGHTS_TO_ACCEL and op.layer == 2)
    assert [program.ops[index].batch for index in third.after] == [0, 1], "the buffer is free when both have used it"


def test_zero_copy_does_not_queue_behind_weights() -> None:
    """A column on the host, the rest moved: its small rows come back while the next layer's weights still load."""
    placement = whole(4, LayerPlacement.of(Split(0.0, 0.9, 0.0, 0.1)))
    queued, zero_copy = (
        makespan(lowered(each, DECODES), planned(DECODES), COSTS)[0]
        for each in (placement, replace(placement, zero_copy=True))
    )
    assert zero_copy < 0.9 * queued


def test_overlap_is_worth_what_it_hides() -> None:
    placement = whole(4, LayerPlacement.of(STREAMED))
    plan = planned(DECODES)
    overlapped_s, busy_s = makespan(lowered(placement, DECODES), plan, COSTS)
    serial = lowered(replace(placement, overlapped=False, buffers=1), DECODES)
    assert serial.serial
    assert makespan(serial, plan, COSTS)[0] == pytest.approx(sum(busy_s))
    assert max(busy_s) <= overlapped_s < sum(busy_s)


@pytest.mark.parametrize("kind", placements(4))
@pytest.mark.parametrize("batches", [(DECODES,), (PROMPTS,), (MIXED,), (DECODES, MIXED)], ids=len)
def test_every_placement_is_a_program_that_can_be_placed(kind: str, batches: tuple[Batch, ...]) -> None:
    """Nobody waits for what comes later, every op has a price, and a step is never shorter than its busiest unit."""
    plan = planned(*batches)
    program = lower(plan, placements(4)[kind])
    assert all(index < op.index for op in program.ops for index in op.after)
    seconds = durations(program, plan, COSTS)
    assert min(seconds) >= 0.0
    took_s, busy_s = makespan(program, plan, COSTS)
    assert took_s == pytest.approx(max(place(program, seconds, 0.0)))
    assert max(busy_s) <= took_s + 1e-12
    assert sum(op.kind is OpKind.HEAD for op in program.ops) == len(batches)


def test_what_nobody_tests_is_refused() -> None:
    move = Move(1, Tier.ACCEL, (3,), Tier.HOST, (0,), 16)
    with pytest.raises(UnsupportedPlanError, match="without cohorts, moves and requests on the host"):
        lower(planned(DECODES, moves=(move,)), whole(1, LayerPlacement.of(STREAMED)))
    with pytest.raises(UnsupportedPlanError, match="without cohorts, moves and requests on the host"):
        lower(planned(Batch((), (), (), (0,), (3,))), whole(1, LayerPlacement.of(STREAMED)))
    with pytest.raises(PlacementError, match=r"0.5 \+ 0.6 \+ 0 \+ 0 are not one whole"):
        Split(0.5, 0.6)
    with pytest.raises(PlacementError, match="are not one whole"):
        Split(1.5, -0.5)
    with pytest.raises(PlacementError, match="buffers: 3"):
        whole(1, LayerPlacement.of(FROM_DISK), buffers=3)
    with pytest.raises(PlacementError, match="on the host where their KV is"):
        LayerPlacement(prompts=Unit.CPU)


@pytest.mark.parametrize("outputs", [1, 3, 7, 768])
def test_columns_are_all_there(outputs: int) -> None:
    for placement in placements(4).values():
        for layer in placement.layers:
            for split in layer.splits:
                assert sum(split.columns(outputs)) == outputs
                assert min(split.columns(outputs)) >= 0
