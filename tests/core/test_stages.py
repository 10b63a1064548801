"""Layers spread over several accelerators: the lowering as text, buffers and links of one's own, and rounds in which no
stage runs empty.
"""

from dataclasses import replace

import pytest

from engines.core.errors import UnsupportedPlanError
from engines.core.memory import ModelSizes, footprint
from engines.core.ops import OpKind, Program
from engines.core.pipeline import durations, lower, place
from engines.core.placement import ON_HOST, RESIDENT, STREAMED, LayerPlacement, Placement, PlacementError
from engines.core.roofline import Roofline
from engines.core.stages import Rounds, staged
from engines.core.types import Batch, BlockChanges, Mode, StepPlan
from engines.core.units import Tier, Unit
from tests.core.test_placed import MATRICES, RATES
from tests.core.worlds import MACHINE, MODEL

STREAMS, STAYS, HOSTED = LayerPlacement.of(STREAMED), LayerPlacement.of(RESIDENT), LayerPlacement.of(ON_HOST, Tier.HOST)
COSTS = Roofline(replace(MODEL, matrices=MATRICES), replace(RATES, peer_bytes_per_s=1e9, peer_latency_s=5e-6))
ONE = Batch((0,), (31,))
OVERHEAD_S = 1e-3


def _plan(*batches: Batch, mode: Mode = Mode.GPU_ONLY) -> StepPlan:
    return StepPlan(1, mode, batches, BlockChanges())


def _two_stages(layers: int) -> Placement:
    return staged(Placement.all_on_accelerator(layers), 2)


def test_runs_are_of_equal_length() -> None:
    assert _two_stages(4).stages == (0, 0, 1, 1)
    assert staged(Placement.all_on_accelerator(5), 3).stages == (0, 0, 1, 1, 2)
    assert staged(Placement.all_on_accelerator(5), 3).devices == 3


def test_each_run_gets_its_part_of_what_is_moved() -> None:
    """Else one link would carry it all, while the others have nothing to do."""
    spread = staged(Placement((STAYS, STAYS, STREAMS, STREAMS)), 2)
    assert spread.layers == (STAYS, STREAMS, STAYS, STREAMS)
    assert spread.stages == (0, 0, 1, 1)


def test_layers_of_the_host_stay_side_by_side() -> None:
    spread = staged(Placement((HOSTED, HOSTED, STAYS, STAYS), overlapped=False), 2)
    assert spread.layers == (HOSTED, HOSTED, STAYS, STAYS)
    assert spread.stages == (0, 0, 0, 1)


def test_stages_that_mean_nothing_are_refused() -> None:
    with pytest.raises(PlacementError, match="side by side"):
        Placement((STAYS, STAYS), stages=(1, 0))
    with pytest.raises(PlacementError, match="one for each layer"):
        Placement((STAYS, STAYS), stages=(0,))


def test_one_batch_passes_from_accelerator_to_accelerator() -> None:
    program = lower(_plan(ONE), _two_stages(2))
    assert [f"{op.kind.value}@{op.layer} {op.unit.name} {op.device} after {list(op.after)}" for op in program.ops] == [
        "first@0 GPU 0 after []",
        "attention@0 GPU 0 after [0]",
        "between@0 GPU 0 after [1]",
        "next_stage@0 D2H 0 after [2]",
        "attention@1 GPU 1 after [3]",
        "last@1 GPU 1 after [4]",
    ]
    assert program.devices == 2


def test_the_hidden_state_crosses_once_per_border() -> None:
    """By hand: 5 us, and 256 values of 4 bytes for each of three rows at 1 GB/s."""
    step = _plan(Batch((0, 1, 2), (31, 15, 7)))
    program = lower(step, staged(Placement.all_on_accelerator(6), 3))
    crossing = [
        seconds
        for op, seconds in zip(program.ops, durations(program, step, COSTS), strict=True)
        if op.kind is OpKind.NEXT_STAGE
    ]
    assert crossing == [pytest.approx(5e-6 + 3 * 256 * COSTS.model.bytes_per_parameter / 1e9)] * 2


def test_only_what_runs_on_accelerators_alone_is_lowered() -> None:
    with pytest.raises(UnsupportedPlanError, match="pipeline of accelerators"):
        lower(_plan(ONE, ONE, mode=Mode.ASYMMETRIC), _two_stages(2))


# --- placed weights --------------------------------------------------------------------------------------------------


def _loads(program: Program) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(op.layer, op.device, op.after) for op in program.ops if op.kind is OpKind.WEIGHTS_TO_ACCEL]


def test_each_accelerator_loads_over_its_own_link_into_its_own_buffers() -> None:
    """Six layers that move one matrix each: two buffers on each of two accelerators, so two of the loads wait."""
    moves = LayerPlacement(up=STREAMED)
    program = lower(_plan(ONE, mode=Mode.PLACED), staged(Placement((moves,) * 6), 2))
    loads = _loads(program)
    assert [(layer, device) for layer, device, _ in loads] == [(0, 0), (1, 0), (3, 1), (4, 1), (2, 0), (5, 1)]
    assert [layer for layer, _, after in loads if after] == [2, 5]
    by_index = {op.index: op for op in program.ops}
    waited_for = [by_index[index].layer for _, _, after in loads for index in after]
    assert waited_for == [0, 3]  # the first of the accelerator's own


def test_two_links_bring_more_than_one() -> None:
    """Four layers by links that are slow enough to decide: the second accelerator's two come beside the first's."""
    slow = Roofline(COSTS.model, replace(COSTS.machine, h2d_bytes_per_s=1e8))
    placement = Placement((STREAMS,) * 4)
    step = _plan(ONE, mode=Mode.PLACED)
    ends = []
    for each in (placement, staged(placement, 2)):
        program = lower(step, each)
        ends.append(max(place(program, durations(program, step, slow), 0.0)))
    assert ends[1] == pytest.approx(ends[0] / 2, rel=0.3)


def test_buffers_are_had_on_each_accelerator() -> None:
    sizes = ModelSizes(4, MATRICES, 4, 64, 1, 8, 0, 0, False, 0)
    placement = Placement((STREAMS,) * 4)
    alone, asked = footprint(placement, sizes).accel, footprint(placement, sizes, 2).accel
    assert asked == 2 * alone == footprint(staged(placement, 2), sizes).accel


# --- rounds ----------------------------------------------------------------------------------------------------------


def _rounds(batches: int, layers: int = 4, count: int = 6) -> list[float]:
    """How long each of so many rounds takes."""
    rounds, begin_s, spans = Rounds(), OVERHEAD_S, []
    step = _plan(*[ONE] * batches)
    program = lower(step, _two_stages(layers))
    for _ in range(count):
        end_s = max(rounds.place(program, durations(program, step, COSTS), begin_s, OVERHEAD_S))
        spans.append(end_s - begin_s + OVERHEAD_S)
        begin_s = end_s + OVERHEAD_S
    return spans


def test_one_batch_takes_its_whole_way_each_time() -> None:
    first, *others = _rounds(1)
    assert others == [pytest.approx(first)] * 5


def test_two_batches_keep_two_stages_busy() -> None:
    """Each round one batch's way, not one and a half: it begins again while the other one is in the second stage."""
    [alone, *_], [filling, *others] = _rounds(1), _rounds(2)
    assert filling > 1.3 * alone
    assert others == [pytest.approx(alone, rel=0.02)] * 5


def test_after_a_pause_nothing_begins_before_it_was_asked_for() -> None:
    rounds, step = Rounds(), _plan(ONE, ONE)
    program = lower(step, _two_stages(4))
    seconds = durations(program, step, COSTS)
    first = rounds.place(program, seconds, 0.0, OVERHEAD_S)
    later_s = max(first) + 1.0
    again = rounds.place(program, seconds, later_s, OVERHEAD_S)
    assert again == [pytest.approx(end_s + later_s) for end_s in first]


# --- every layer on all of them --------------------------------------------------------------------------------------


def test_what_is_split_has_to_be_added_up_twice_a_layer() -> None:
    """By hand: two sums of a row of hidden values, each twice three hand-overs of a quarter of it."""
    alone, shared = COSTS, Roofline(COSTS.model, replace(COSTS.machine, shares=4))
    rows = 8
    passed_s = 5e-6 + rows * 256 * COSTS.model.bytes_per_parameter / 4 / 1e9
    assert shared.linear_s(rows) - alone.linear_s(rows) == pytest.approx(2 * 6 * passed_s)
    assert shared.pre_attention_s(rows) == alone.pre_attention_s(rows)
    assert shared.post_attention_s(rows) - alone.post_attention_s(rows) == pytest.approx(2 * 6 * passed_s)
    assert shared.head_s(rows) > alone.head_s(rows)  # its logits are brought together


def test_units_of_further_accelerators_have_lanes_of_their_own() -> None:
    lanes = {op.lane for op in lower(_plan(ONE), _two_stages(2)).ops}
    assert lanes == {Unit.GPU, Unit.D2H, Unit.GPU + len(Unit)}
    assert MACHINE.shares == 1
