"""The paced accelerator on a clock that a test moves: deadlines, lateness, overruns, the overhead between steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from engines.backends.pacing import ModelledPace, NativePace, Pace
from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.ops import Op, Program
from engines.core.pipeline import durations, lower
from engines.core.types import StepPlan, UnitTimes
from tests.backends.plans import COSTS, DECODES, OUT, OVERHEAD_S, PLACEMENT, PLANS, Trace, plan
from tests.core.worlds import capabilities

DECODE_STEP = plan(DECODES)
PROGRAM = lower(DECODE_STEP, PLACEMENT)
SECONDS = durations(PROGRAM, DECODE_STEP, COSTS)


@dataclass
class FakeClock:
    """Real work is a call of `work`; waiting is noted, and may wake late as real sleep does."""

    now_s: float = 0.0
    oversleep_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)

    def restart(self) -> None:
        raise AssertionError("a pace never restarts its clock")

    def now(self) -> float:
        return self.now_s

    def wait_until(self, moment_s: float) -> None:
        self.waits_s.append(moment_s)
        if moment_s > self.now_s:
            self.now_s = moment_s + self.oversleep_s

    def work(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass(frozen=True)
class Ran:
    started_s: float
    ended_s: float
    units: UnitTimes
    starts_s: list[float]
    ends_s: list[float]


def run(clock: FakeClock, pace: Pace, trace: Trace, work_s: Sequence[float], planned: StepPlan = DECODE_STEP) -> Ran:
    """One step as the launching thread runs it, op after op, each with so much real work."""
    trace.rows.clear()
    program = lower(planned, PLACEMENT)
    step = pace.step(planned, program)
    for op, seconds in zip(program.ops, work_s, strict=True):
        step.before(op)
        clock.work(seconds)
        step.after(op)
    ended_s, units = step.finish()
    return Ran(step.started_s, ended_s, units, [row[2] for row in trace.rows], [row[3] for row in trace.rows])


def paced(clock: FakeClock) -> tuple[ModelledPace, Trace]:
    trace = Trace()
    return ModelledPace(clock, COSTS, trace), trace


def test_fast_work_takes_the_modelled_time() -> None:
    clock = FakeClock()
    pace, trace = paced(clock)
    ran = run(clock, pace, trace, [1e-4] * len(SECONDS))
    assert ran.started_s == OVERHEAD_S
    assert ran.ended_s == clock.now() == pytest.approx(OVERHEAD_S + sum(SECONDS))
    assert ran.units.overruns == 0
    assert ran.units.ops == len(SECONDS)
    assert ran.units.gpu_s == pytest.approx(sum(SECONDS))


@pytest.mark.parametrize("planned", PLANS.values(), ids=PLANS)
def test_the_paced_step_is_the_simulated_one(planned: StepPlan) -> None:
    clock = FakeClock()
    pace, trace = paced(clock)
    ran = run(clock, pace, trace, [1e-4] * len(lower(planned, PLACEMENT).ops), planned)
    simulated = SimExecutor(capabilities(64, 8), PLACEMENT, COSTS, VirtualClock()).run(planned)
    assert (ran.started_s, ran.ended_s) == pytest.approx((simulated.started_s, simulated.ended_s))


def test_deadlines_chain() -> None:
    """An op starts at the deadline of the one before, whatever was left over; the step waits once, at its end."""
    clock = FakeClock()
    pace, trace = paced(clock)
    program = PROGRAM
    step = pace.step(DECODE_STEP, program)
    for op in program.ops:
        step.before(op)
        clock.work(3e-4)
        step.after(op)
        clock.work(2e-4)  # between the ops
    ended_s, units = step.finish()
    starts_s, ends_s = [row[2] for row in trace.rows], [row[3] for row in trace.rows]
    assert starts_s == [OVERHEAD_S, *ends_s[:-1]]
    assert ends_s == pytest.approx([OVERHEAD_S + sum(SECONDS[: index + 1]) for index in range(len(SECONDS))])
    assert ended_s == ends_s[-1]
    assert units.overruns == 0
    assert clock.waits_s == pytest.approx([ended_s]), "real work runs ahead, in one go"


def test_waking_late_does_not_add_up() -> None:
    clock = FakeClock(oversleep_s=2e-4)
    pace, trace = paced(clock)
    ran = run(clock, pace, trace, [1e-4] * len(SECONDS))
    assert ran.ended_s == pytest.approx(OVERHEAD_S + sum(SECONDS))
    assert ran.units.overruns == 0


@pytest.mark.parametrize("late", range(len(SECONDS)))
def test_a_late_op_is_an_overrun_and_delays_the_rest(late: int) -> None:
    clock = FakeClock()
    pace, trace = paced(clock)
    work_s = [1e-4] * len(SECONDS)
    work_s[late] = OVERHEAD_S + sum(SECONDS) + 0.25
    ran = run(clock, pace, trace, work_s)
    assert ran.units.overruns == 1
    assert ran.ends_s[late] == pytest.approx(sum(work_s[: late + 1]))
    assert ran.starts_s[late + 1 :] == ran.ends_s[late:-1]
    assert ran.ended_s == pytest.approx(ran.ends_s[late] + sum(SECONDS[late + 1 :]))


@pytest.mark.parametrize(("share", "overruns"), [(0.999, 0), (1.001, 1)])
def test_work_may_take_what_the_ops_before_left_over(share: float, overruns: int) -> None:
    clock = FakeClock()
    pace, trace = paced(clock)
    work_s = [0.0] * len(SECONDS)
    work_s[-1] = share * (OVERHEAD_S + sum(SECONDS))
    assert run(clock, pace, trace, work_s).units.overruns == overruns


def test_one_overhead_between_two_steps() -> None:
    clock = FakeClock()
    pace, trace = paced(clock)
    quick = [0.0] * len(SECONDS)
    first = run(clock, pace, trace, quick)
    clock.work(OVERHEAD_S / 2)  # scheduling that fits into it
    second = run(clock, pace, trace, quick)
    assert second.started_s == pytest.approx(first.ended_s + OVERHEAD_S)
    clock.work(3 * OVERHEAD_S)  # scheduling that does not
    third = run(clock, pace, trace, quick)
    assert third.started_s == pytest.approx(second.ended_s + 3 * OVERHEAD_S)


def test_an_idle_engine_starts_at_once() -> None:
    clock = FakeClock(now_s=100.0)
    pace, trace = paced(clock)
    ran = run(clock, pace, trace, [0.0] * len(SECONDS))
    assert (ran.started_s, ran.ended_s) == pytest.approx((100.0, 100.0 + sum(SECONDS)))


def test_units_have_deadlines_of_their_own() -> None:
    """A move that nothing waits for keeps its unit busy and delays no other: the lowering by hand overlaps them."""
    serial = lower(plan(DECODES, OUT), PLACEMENT)
    move, first, *rest = serial.ops
    program = Program.of([move, Op(first.index, first.kind, first.unit, first.layer, ()), *rest])
    planned = plan(DECODES, OUT)
    seconds = durations(program, planned, COSTS)
    clock = FakeClock()
    pace, trace = paced(clock)
    step = pace.step(planned, program)
    for op in program.ops:
        step.before(op)
        step.after(op)
    ended_s, units = step.finish()
    assert trace.rows[0][2] == trace.rows[1][2] == OVERHEAD_S
    assert ended_s == pytest.approx(OVERHEAD_S + max(seconds[0], sum(seconds[1:])))
    assert units.d2h_s == pytest.approx(seconds[0])
    assert units.overruns == 0


def test_native_is_as_it_comes() -> None:
    clock, trace = FakeClock(now_s=7.0), Trace()
    work_s = [0.01 * (index + 1) for index in range(len(SECONDS))]
    ran = run(clock, NativePace(clock, trace), trace, work_s)
    assert (ran.started_s, ran.ended_s) == pytest.approx((7.0, 7.0 + sum(work_s)))
    assert [end_s - start_s for start_s, end_s in zip(ran.starts_s, ran.ends_s, strict=True)] == pytest.approx(work_s)
    assert (ran.units.ops, ran.units.overruns) == (len(SECONDS), 0)
    assert ran.units.gpu_s == pytest.approx(sum(work_s))
    assert clock.waits_s == []
