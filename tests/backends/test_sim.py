"""The simulator takes the times that `place` gives, says so op by op, and says the same thing twice."""

import pytest

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.ops import OpKind, Program
from engines.core.pipeline import durations, lower, place
from engines.core.types import StepPlan, StepResult, Unit
from engines.gpu_only.policy import GpuOnly
from tests.backends.plans import BACK, COSTS, DECODES, LAYERS, MODEL, OUT, OVERHEAD_S, PLACEMENT, PLANS, Trace, plan
from tests.core.worlds import capabilities, world

CAPS = capabilities(64, 8)


def simulator(clock: VirtualClock, trace: Trace | None = None, traced_steps: int = 200) -> SimExecutor:
    return SimExecutor(CAPS, PLACEMENT, COSTS, clock, trace, traced_steps)


@pytest.mark.parametrize("planned", PLANS.values(), ids=PLANS)
def test_a_step_takes_what_place_gives(planned: StepPlan) -> None:
    program = lower(planned, PLACEMENT)
    ends_s = place(program, durations(program, planned, COSTS), OVERHEAD_S)
    clock, trace = VirtualClock(), Trace()
    result = simulator(clock, trace).run(planned)
    assert result.started_s == OVERHEAD_S
    assert result.ended_s == clock.now() == max(ends_s)
    assert [op for _, op, _, _ in trace.rows] == list(program.ops)
    assert [end_s for _, _, _, end_s in trace.rows] == ends_s
    assert result.units.ops == len(program.ops)
    assert result.units.overruns == 0


@pytest.mark.parametrize("planned", PLANS.values(), ids=PLANS)
def test_the_trace_and_the_short_cut_agree(planned: StepPlan) -> None:
    """Beyond the first steps nobody asks for every op, and sums are taken instead."""
    traced = simulator(VirtualClock(), Trace()).run(planned)
    summed = simulator(VirtualClock(), Trace(), traced_steps=0).run(planned)
    assert summed.ended_s == pytest.approx(traced.ended_s, rel=1e-12)
    assert busy(summed) == pytest.approx(busy(traced), rel=1e-9)
    assert summed.units.ops == traced.units.ops


def test_the_trace_ends_where_it_was_told_to() -> None:
    clock, trace = VirtualClock(), Trace()
    executor = simulator(clock, trace, traced_steps=2)
    for step in (1, 2, 3):
        executor.run(plan(DECODES, step=step))
    assert {step for step, *_ in trace.rows} == {1, 2}


def test_ops_take_what_the_table_says() -> None:
    """Once by hand: weights over bandwidth, KV over bandwidth, and the pieces in their order."""
    trace = Trace()
    simulator(VirtualClock(), trace).run(plan(DECODES))
    took = [(op.kind, round(end_s - start_s, 9)) for _, op, start_s, end_s in trace.rows]
    attention = (OpKind.ATTENTION, 1e-3 + (100 + 200) * MODEL.kv_bytes_per_token / 1e8)
    between = (OpKind.BETWEEN, 8e-3)
    assert took == [
        (OpKind.FIRST, 2e-3),
        *[attention, between] * (LAYERS - 1),
        attention,
        (OpKind.LAST, 7e-3),
    ]


def test_moves_come_first_one_after_the_other() -> None:
    trace = Trace()
    result = simulator(VirtualClock(), trace).run(PLANS["moves"])
    (_, out, begin_s, out_s), (_, back, back_begin_s, back_s), (_, first, first_begin_s, _) = trace.rows[:3]
    assert (out.unit, back.unit, first.kind) == (Unit.D2H, Unit.H2D, OpKind.FIRST)
    assert begin_s == OVERHEAD_S
    assert out_s - begin_s == pytest.approx(COSTS.move_s(OUT))
    assert back_begin_s == pytest.approx(out_s)
    assert back_s - back_begin_s == pytest.approx(COSTS.move_s(BACK))
    assert first_begin_s == pytest.approx(back_s)
    assert result.units.d2h_s == pytest.approx(COSTS.move_s(OUT))
    assert result.units.h2d_s == pytest.approx(COSTS.move_s(BACK))


def test_one_overhead_between_two_steps_and_none_after_a_wait() -> None:
    clock = VirtualClock()
    executor = simulator(clock)
    first = executor.run(plan(DECODES, step=1))
    second = executor.run(plan(DECODES, step=2))
    assert second.started_s == pytest.approx(first.ended_s + OVERHEAD_S)
    clock.wait_until(second.ended_s + 10)
    assert executor.run(plan(DECODES, step=3)).started_s == second.ended_s + 10


def test_tokens_are_one_per_sampling_row() -> None:
    sampled = {name: len(simulator(VirtualClock()).run(planned).tokens) for name, planned in PLANS.items()}
    assert sampled == {"decodes": 2, "prefills": 1, "mixed": 3, "moves": 2}


def test_two_runs_are_one_run() -> None:
    assert simulated() == simulated()


def simulated() -> tuple[list[StepPlan], list[float], list[int]]:
    """A starved run with swapping, and all that came of it."""
    here = world(accel_blocks=12, max_batch=6, max_batch_tokens=40, host_blocks=8, policy=GpuOnly("swap"))
    for request_id in range(20):
        here.submit(request_id, 10 + 3 * request_id, 25)
    ends_s = []
    while here.step() is not None:
        ends_s.append(here.clock.now())
    assert any(planned.moves for planned in here.plans)
    return here.plans, ends_s, here.finished


def busy(result: StepResult) -> tuple[float, ...]:
    units = result.units
    return units.gpu_s, units.cpu_s, units.h2d_s, units.d2h_s, units.disk_s


def test_an_overlapping_program_is_placed_not_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lowering overlaps yet, so one is made by hand: a move beside the first op, not before it."""
    serial = lower(plan(DECODES, OUT), PLACEMENT)
    move, first, *rest = serial.ops
    free = type(first)(first.index, first.kind, first.unit, first.layer, ())
    program = Program.of([move, free, *rest])
    assert not program.serial
    monkeypatch.setattr("engines.backends.sim.lower", lambda *_: program)
    seconds = durations(program, plan(DECODES, OUT), COSTS)
    for trace in (None, Trace()):
        result = simulator(VirtualClock(), trace).run(plan(DECODES, OUT))
        assert result.ended_s - result.started_s == pytest.approx(max(seconds[0], sum(seconds[1:])))
