"""Engines that place weights, over the simulator: what they plan, what they refuse, and how they take to surprises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import pytest

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.memory import ModelSizes, Room, footprint
from engines.core.placement import Part, Placement, PlacementError
from engines.core.placing import dealt
from engines.core.policy import Policy
from engines.core.roofline import Roofline
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, Mode, RequestSpec, StepPlan, TierCapacity
from engines.core.units import Tier
from engines.hardware import load_hardware
from engines.lp_balanced.balance import Form
from engines.lp_balanced.online import Load, _step_s, rebalanced
from engines.lp_balanced.policy import LpBalanced
from engines.model.config import load_config
from engines.static_partition.policy import StaticPartition
from engines.weight_streaming.policy import WeightStreaming
from harness.costs import machine_rates, model_costs
from harness.placed_sizing import model_sizes

GIB = 2**30
MODEL = load_config("opt-13b")
SIZES: ModelSizes = model_sizes(MODEL, 2)
ROOM = Room(SIZES, 12 * GIB, 60 * GIB, 100 * GIB, GIB // 4, 16, 100_000, 8, 512)
COSTS = Roofline(model_costs(MODEL, "float16"), machine_rates(load_hardware("t4_g4dn_4xlarge"), "float16"))
ONLINE = LpBalanced(prompt_tokens=128, output_tokens=64)


class Slowed(Roofline):
    """The machine as it is, until the host's matrix products take `factor` times as long."""

    factor = 1.0

    def _host_matrix_s(self, parts: Sequence[Part], share: float, rows: int) -> float:
        return self.factor * super()._host_matrix_s(parts, share, rows)


@dataclass
class Served:
    core: EngineCore
    clock: VirtualClock
    executor: SimExecutor

    def steps(self) -> Iterator[tuple[StepPlan, float]]:
        while (plan := self.core.schedule(self.clock.now())) is not None:
            result = self.executor.run(plan)
            self.core.commit(plan, result)
            yield plan, result.ended_s - result.started_s


def serve(policy: Policy, placement: Placement, truth: Roofline, room: Room = ROOM) -> Served:
    blocks = room.kv_blocks(placement)
    capabilities = Capabilities(room.sizes.layers, TierCapacity(blocks, 16), TierCapacity(0, 256))
    core = EngineCore(policy, capabilities, Limits(room.max_batch, room.max_batch_tokens), COSTS, placement)
    clock = VirtualClock()
    return Served(core, clock, SimExecutor(capabilities, placement, truth, clock))


def answered(served: Served, requests: int, prompt: int, output: int) -> list[tuple[StepPlan, float]]:
    for index in range(requests):
        assert served.core.submit(RequestSpec(index, prompt, output)) is None
    return list(served.steps())


# --- what is planned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        StaticPartition(),
        StaticPartition(host="ffn"),
        WeightStreaming(),
        WeightStreaming(prefetch=True),
        ONLINE,
        replace(ONLINE, form="integer"),
        LpBalanced(planner="flexgen", prompt_tokens=128, output_tokens=64, gpu_batch=4),
        LpBalanced(planner="flexgen", prompt_tokens=128, output_tokens=64, gpu_batch=4, compress=True),
    ],
    ids=str,
)
def test_plans_stay_within_every_budget(policy: StaticPartition | WeightStreaming | LpBalanced) -> None:
    placement = policy.place(ROOM, COSTS)
    kv = ROOM.kv_blocks(placement) * ROOM.page_tokens * SIZES.kv_bytes(packed=placement.compressed_kv)
    for tier in Tier:
        held = footprint(placement, SIZES).of(tier) + placement.kv_layers(tier) * kv
        assert held <= ROOM.budget(tier), f"{tier.name}: {placement}"
    assert not placement.all_resident
    served = serve(policy, placement, COSTS)
    steps = answered(served, 8, 120, 8)
    assert {plan.mode for plan, _ in steps} == {Mode.PLACED}


@pytest.mark.parametrize(
    "policy", [StaticPartition(), WeightStreaming(), ONLINE, LpBalanced(planner="flexgen")], ids=str
)
def test_what_fits_is_all_on_the_accelerator(policy: StaticPartition | WeightStreaming | LpBalanced) -> None:
    assert policy.place(replace(ROOM, accel_bytes=80 * GIB), COSTS).all_resident


def test_more_layers_need_more_room() -> None:
    counts = []
    for size in (8, 12, 16, 24):
        placement = StaticPartition().place(replace(ROOM, accel_bytes=size * GIB), COSTS)
        counts.append(placement.kv_layers(Tier.ACCEL))
        assert [layer.kv for layer in placement.layers] == sorted(
            (layer.kv for layer in placement.layers), reverse=True
        )
    assert counts == sorted(set(counts)), "auto takes the most that fit, counted from the last"


def test_weights_beyond_the_host_are_on_disk() -> None:
    placement = WeightStreaming().place(replace(ROOM, host_bytes=8 * GIB), COSTS)
    kinds = [(split.is_resident, split.streamed, split.from_disk) for split in (layer.up for layer in placement.layers)]
    assert kinds == sorted(kinds, key=lambda kind: (-kind[0], -kind[1])), "devices are filled in order"
    assert placement.uses_disk


def test_loads_are_balanced() -> None:
    placement = ONLINE.place(ROOM, COSTS)
    found = rebalanced(placement, COSTS, "lp", Load(8, 0, 160)).balance
    assert found.imbalance < 0.01
    assert found.binds == ("CPU load", "GPU load")
    whole = rebalanced(placement, COSTS, "integer", Load(8, 0, 160)).balance
    assert whole.lambda_s >= found.lambda_s * (1 - 1e-9)
    assert {share in (0.0, 1.0) for share in whole.host_share} == {True}


def test_prompts_are_not_left_to_the_host() -> None:
    """A step of many rows is arithmetic, at which the host is bad: less of it is the host's than of a decode step."""
    placement = ONLINE.place(ROOM, COSTS)
    decodes = rebalanced(placement, COSTS, "lp", Load(8, 0, 160)).balance
    prompts = rebalanced(placement, COSTS, "lp", Load(512, 512, 0)).balance
    assert sum(prompts.host_share) < 0.5 * sum(decodes.host_share)


@pytest.mark.parametrize("form", ["lp", "integer"])
def test_prompts_take_no_longer_than_with_everything_streamed(form: Form) -> None:
    """The balance adds up what overlaps; its solution for a step of prompts is slower than leaving the host alone."""
    placement, load = ONLINE.place(ROOM, COSTS), Load(512, 512, 0)
    found = rebalanced(placement, COSTS, form, load)
    streamed = [split.streamed + split.host for layer in placement.layers for split in layer.splits]
    assert sum(streamed) > 0
    alone = dealt(placement, [0.0] * len(streamed))
    assert found.step_s <= _step_s(alone, COSTS, load)
    assert found.step_s < 0.9 * _step_s(dealt(placement, found.balance.host_share), COSTS, load)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_budget_that_holds_nothing_says_what_is_short() -> None:
    for policy in (StaticPartition(), WeightStreaming(), ONLINE):
        with pytest.raises(PlacementError, match=r"do not fit the (accelerator|host): .* are short of"):
            policy.place(replace(ROOM, accel_bytes=GIB // 2, host_bytes=GIB, disk_bytes=0), COSTS)
    with pytest.raises(PlacementError, match=r"memory is short of"):
        LpBalanced(planner="flexgen").place(replace(ROOM, host_bytes=GIB, disk_bytes=0), COSTS)


def test_numbers_out_of_range() -> None:
    for policy in (StaticPartition(accel_layers=41), WeightStreaming(accel_layers=41)):
        with pytest.raises(PlacementError, match="accel_layers: 41, the model has 40; use 0 to 40"):
            policy.place(ROOM, COSTS)
    with pytest.raises(ValueError, match="accel_layers: -1"):
        StaticPartition(accel_layers=-1)
    with pytest.raises(ValueError, match="belong to planner: flexgen"):
        LpBalanced(compress=True)
    with pytest.raises(ValueError, match="band: 0"):
        LpBalanced(band=0.0)
    with pytest.raises(PlacementError, match="name its hardware"):
        ONLINE.place(ROOM, None)


def test_reservations_limit_who_runs() -> None:
    """Each request has a whole context to itself, however short it is; paged ones take what they need."""
    reserved, paged = StaticPartition(context=4096), StaticPartition(kv="paged")
    most = []
    for policy in (reserved, paged):
        served = serve(policy, policy.place(ROOM, COSTS), COSTS)
        rows = [len(plan.batches[0].decode_slots) for plan, _ in answered(served, 8, 16, 8)]
        most.append(max(rows))
    assert most[0] == ROOM.kv_blocks(reserved.place(ROOM, COSTS)) * 16 // 4096 < most[1] == 8


# --- while it serves --------------------------------------------------------------------------------------------------


def test_a_slower_host_is_planned_around() -> None:
    """The host slows to a third in mid-run: shares move to the link, and what can be had back comes back."""
    policy = replace(ONLINE, prompt_tokens=64, output_tokens=400)
    placement = policy.place(ROOM, COSTS)
    truth = Slowed(COSTS.model, COSTS.machine)
    served = serve(policy, placement, truth)
    for index in range(8):
        served.core.submit(RequestSpec(index, 40, 300))
    took: list[float] = []
    for plan, step_s in served.steps():
        if not plan.batches[0].prefills:
            took.append(step_s)
        if len(took) == 60:
            truth.factor = 3.0
            truth.host_matrix_s.cache_clear()
    before, hit, after = median(took[40:60]), median(took[60:62]), median(took[-60:])
    assert hit > 1.5 * before, "the host was not worth slowing"
    assert policy._pilot.solves > 0
    assert after < 0.75 * hit, f"{before:.3f} s a step, then {hit:.3f}, in the end {after:.3f}"
    fixed = Slowed(COSTS.model, COSTS.machine)
    fixed.factor = 3.0
    knowing = rebalanced(placement, fixed, "lp", Load(8, 0, 320)).step_s
    assert after < 1.15 * knowing, "as good as if it had known"


def test_a_machine_as_believed_is_not_planned_anew() -> None:
    policy = replace(ONLINE, prompt_tokens=64, output_tokens=64)
    served = serve(policy, policy.place(ROOM, COSTS), COSTS)
    answered(served, 8, 40, 60)
    assert policy._pilot.solves == 0


def test_blocks_are_filled_then_answered_in_lockstep() -> None:
    """Offline: nobody joins a block that has begun to decode, and a layer's weights serve all of its batches."""
    policy = LpBalanced(planner="flexgen", prompt_tokens=64, output_tokens=16, gpu_batch=2, num_gpu_batches=2)
    room = replace(ROOM, max_batch=4)
    steps = answered(serve(policy, policy.place(room, COSTS), COSTS, room), 10, 60, 12)
    admitted = [len(plan.admitted) for plan, _ in steps if plan.admitted]
    assert sum(admitted) == 10
    assert max(admitted) <= 4
    decoding = [plan for plan, _ in steps if not any(batch.prefills for batch in plan.batches)]
    assert {len(batch.decode_slots) for plan in decoding for batch in plan.batches} == {2}
    assert len(decoding) == 3 * 11, "three blocks, each to its end"
