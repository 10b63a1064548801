"""Units in each other's way: what ops take while host and accelerator work side by side, and when they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.core.cost import Work
from engines.core.dealing import Pipeline
from engines.core.ops import OpKind
from engines.core.pipeline import lower, makespan
from engines.core.placement import Placement
from engines.core.roofline import Roofline
from engines.core.types import Batch, BlockChanges, Mode, StepPlan, Unit
from tests.core.worlds import MACHINE, MODEL

LAYERS = 4
HOST, LINKS, ACCEL = 1.5, 1.25, 2.0
ALONE = Roofline(MODEL, MACHINE)
DISTURBED = Roofline(MODEL, MACHINE.slowed(HOST, LINKS, ACCEL), alone=MACHINE, accel_slowdown=ACCEL)
OWN = Batch(decode_slots=(0, 1), decode_positions=(99, 199))
BOTH = replace(OWN, host_slots=(2, 3, 4), host_positions=(99, 199, 299))


def _busy(mode: Mode, batch: Batch, costs: Roofline) -> list[float]:
    plan = StepPlan(0, mode, (batch,), BlockChanges())
    return makespan(lower(plan, Placement.all_on_accelerator(LAYERS)), plan, costs)[1]


def test_every_op_of_a_unit_takes_its_factor() -> None:
    work = Work(tokens=9, decode_rows=2, decode_kv_tokens=300, prefill_tokens=7, prefill_kv_tokens=7, prefill_pairs=28)
    assert DISTURBED.linear_s(9) == pytest.approx(ACCEL * ALONE.linear_s(9))
    assert DISTURBED.head_s(9) == pytest.approx(ACCEL * ALONE.head_s(9))
    assert DISTURBED.accel_attention_s(work) == pytest.approx(ACCEL * ALONE.accel_attention_s(work))
    fixed_s, link_s = MACHINE.host_attention_fixed_s, MACHINE.link_latency_s
    assert DISTURBED.host_attention_s(3, 600) - fixed_s == pytest.approx(
        HOST * (ALONE.host_attention_s(3, 600) - fixed_s)
    )
    assert DISTURBED.rows_to_host_s(3) - link_s == pytest.approx(LINKS * (ALONE.rows_to_host_s(3) - link_s))
    assert DISTURBED.kv_to_accel_s(3) - link_s == pytest.approx(LINKS * (ALONE.kv_to_accel_s(3) - link_s))


@pytest.mark.parametrize(
    ("mode", "batch"), [(Mode.GPU_ONLY, OWN), (Mode.SEQUENTIAL, BOTH)], ids=["nothing for the host", "in turns"]
)
def test_who_works_one_at_a_time_is_not_disturbed(mode: Mode, batch: Batch) -> None:
    assert _busy(mode, batch, DISTURBED) == _busy(mode, batch, ALONE)


def test_side_by_side_all_are() -> None:
    alone_s, beside_s = (_busy(Mode.FULL_OVERLAP, BOTH, costs) for costs in (ALONE, DISTURBED))
    assert beside_s[Unit.GPU] == pytest.approx(ACCEL * alone_s[Unit.GPU])
    for unit, factor in ((Unit.CPU, HOST), (Unit.D2H, LINKS)):
        assert alone_s[unit] < beside_s[unit] < factor * alone_s[unit]  # what is fixed in an op stays


def test_a_program_says_whether_host_and_accelerator_work_side_by_side() -> None:
    for mode, batch, beside in (
        (Mode.GPU_ONLY, OWN, False),
        (Mode.SEQUENTIAL, BOTH, False),
        (Mode.FULL_OVERLAP, BOTH, True),
        (Mode.ASYMMETRIC, BOTH, True),
    ):
        program = lower(StepPlan(0, mode, (batch,), BlockChanges()), Placement.all_on_accelerator(LAYERS))
        assert program.beside is beside
        assert any(op.kind is OpKind.HOST_ATTENTION for op in program.ops) is bool(batch.host_slots)


def test_a_policy_prices_the_accelerator_alone_as_alone() -> None:
    work = Work(tokens=2, decode_rows=2, decode_kv_tokens=300, sampled=2)
    prices = [Pipeline.dealt(costs, work, ()).alone_s for costs in (ALONE, DISTURBED)]
    assert prices[1] == pytest.approx(prices[0])


def test_tables_that_differ_beside_or_alone_are_not_equal() -> None:
    again = Roofline(MODEL, MACHINE.slowed(HOST, LINKS, ACCEL), alone=MACHINE, accel_slowdown=ACCEL)
    assert again.equals(DISTURBED)
    assert not DISTURBED.equals(ALONE)
    assert not DISTURBED.equals(Roofline(MODEL, MACHINE.slowed(HOST, LINKS, ACCEL)))
    assert ALONE.alone is ALONE
