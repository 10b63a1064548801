"""How long an op takes on the emulated accelerator: as long as it takes (native), or its modelled duration (paced).

Paced: every op computes its real tensors and completes no earlier than a machine of the catalogue would have. The chain
runs on deadlines: an op begins, on the paced time line, when what it needs has ended there, and real work runs ahead of
that line as far as it can; the step waits once, at its end. Waiting before every op as well would compute each with
cold caches, 3 to 5 times slower, and nobody could see the difference. An op that is not done by its deadline is an
overrun; too many make a cell invalid.

Host attention is submitted and comes back. Whether it is back in time is decided on the paced line, and real lateness
moves that line: a cohort that should be back by now is waited for, and is late.
"""

from collections.abc import Sequence
from typing import Protocol

from engines.backends.host_jobs import HostJob
from engines.backends.op_times import OpSink, OpTally
from engines.core.clock import Clock
from engines.core.cohorts import PassRunner
from engines.core.cost import CostTable
from engines.core.ops import Op, OpKind, Program
from engines.core.pass_line import HostLine, PassLine
from engines.core.pipeline import durations
from engines.core.types import AWAITED, CohortPlan, Guard, StepPlan, Unit, UnitTimes


class Awaited(Protocol):
    """Work that another thread does."""

    def wait(self, clock: Clock) -> tuple[float, float]:
        """Returns when it is done, with begin and end."""


class StepPace(Protocol):
    """Watches the ops of one step as the launching thread runs them in order."""

    started_s: float

    def before(self, op: Op) -> None:
        """The op's real work begins now."""

    def after(self, op: Op) -> None:
        """The op's real work is done."""

    def submitted(self, op: Op) -> None:
        """Instead of `after`: the host's threads have it."""

    def returned(self, op: Op, job: Awaited) -> None:
        """What was submitted is needed now: return when it is done."""

    def finish(self) -> tuple[float, UnitTimes]:
        """All ops have ended; when, and what they took."""


class PassPace(PassRunner, Protocol):
    """Watches a pass with cohorts in the same way: `gpu` and `hand_over` are called when the real work is done."""

    started_s: float

    def needs(self, cohort: CohortPlan, job: HostJob) -> None:
        """What `ready` will be asked about."""

    def finish(self) -> tuple[float, UnitTimes]: ...


class Pace(Protocol):
    def step(self, plan: StepPlan, program: Program) -> StepPace: ...

    def flight(self, plan: StepPlan) -> PassPace: ...


class NativePace:
    """Full speed, measured."""

    def __init__(self, clock: Clock, sink: OpSink | None = None) -> None:
        self._clock = clock
        self._sink = sink

    def step(self, plan: StepPlan, program: Program) -> "_NativeStep":
        return _NativeStep(self._clock, OpTally(plan.step, self._sink))

    def flight(self, plan: StepPlan) -> "_NativePass":
        return _NativePass(self._clock, OpTally(plan.step, self._sink))


class _NativeStep:
    def __init__(self, clock: Clock, tally: OpTally) -> None:
        self._clock = clock
        self._tally = tally
        self.started_s = self._op_started_s = clock.now()

    def before(self, op: Op) -> None:
        """Ops run back to back: one ends when the next begins."""

    def after(self, op: Op) -> None:
        now_s = self._clock.now()
        self._tally.add(op, self._op_started_s, now_s)
        self._op_started_s = now_s

    def submitted(self, op: Op) -> None:
        """The pool says when it ran."""

    def returned(self, op: Op, job: Awaited) -> None:
        self._tally.add(op, *job.wait(self._clock))
        self._op_started_s = self._clock.now()  # nobody was busy while it was waited for

    def finish(self) -> tuple[float, UnitTimes]:
        return self._op_started_s, self._tally.times()


class _NativePass:
    def __init__(self, clock: Clock, tally: OpTally) -> None:
        self._clock = clock
        self._tally = tally
        self._ops = 0
        self._jobs: dict[int, HostJob] = {}
        self.started_s = self._op_started_s = clock.now()

    def gpu(self, kind: OpKind, layer: int, aboard: Sequence[CohortPlan]) -> None:
        now_s = self._clock.now()
        self._tally.add(self._op(kind, Unit.GPU, layer), self._op_started_s, now_s)
        self._op_started_s = now_s

    def needs(self, cohort: CohortPlan, job: HostJob) -> None:
        self._jobs[cohort.cohort] = job

    def ready(self, cohort: CohortPlan, layer: int) -> bool:
        job = self._jobs[cohort.cohort]
        if cohort.patience_us != AWAITED:
            until_s = self._clock.now() + cohort.patience_us * 1e-6
            while not job.done():
                if self._clock.now() >= until_s:
                    self._op_started_s = self._clock.now()
                    return False
        op = self._op(OpKind.HOST_ATTENTION, Unit.CPU, layer, Guard(cohort.cohort, layer))
        self._tally.add(op, *job.wait(self._clock))
        self._op_started_s = self._clock.now()
        return True

    def hand_over(self, cohort: CohortPlan, layer: int) -> None:
        self._op_started_s = self._clock.now()

    def finish(self) -> tuple[float, UnitTimes]:
        return self._op_started_s, self._tally.times()

    def _op(self, kind: OpKind, unit: Unit, layer: int, guard: Guard | None = None) -> Op:
        self._ops += 1
        return Op(self._ops, kind, unit, layer, (), guard=guard)


class ModelledPace:
    """The proportions of another machine, from the same cost table that the simulator uses."""

    def __init__(self, clock: Clock, costs: CostTable, sink: OpSink | None = None) -> None:
        self.clock = clock
        self.costs = costs
        self.host = HostLine()
        self._sink = sink
        self._last_end_s = 0.0

    def step(self, plan: StepPlan, program: Program) -> "_PacedStep":
        seconds = durations(program, plan, self.costs)
        return _PacedStep(self, seconds, self.begin_s(), OpTally(plan.step, self._sink))

    def flight(self, plan: StepPlan) -> "_PacedPass":
        return _PacedPass(self, plan, self.begin_s(), OpTally(plan.step, self._sink))

    def ended(self, end_s: float) -> None:
        self.clock.wait_until(end_s)
        self._last_end_s = end_s

    def begin_s(self) -> float:
        """The same rule as in the simulator: one overhead between steps, in which the real scheduler has to fit."""
        return max(self._last_end_s + self.costs.step_overhead_s, self.clock.now())


class _PacedStep:
    def __init__(self, owner: ModelledPace, seconds: list[float], begin_s: float, tally: OpTally) -> None:
        self._owner = owner
        self._clock = owner.clock
        self._seconds = seconds
        self._tally = tally
        self.started_s = begin_s
        self._begun = False
        self._begins_s = [begin_s] * len(seconds)
        self._ends_s = [begin_s] * len(seconds)
        self._free_s = owner.host.free_s

    def before(self, op: Op) -> None:
        if not self._begun:  # what was prepared until now belongs to the overhead, not to an op of a few microseconds
            self._begun, self.started_s = True, self._owner.begin_s()
        begin_s = max(self._free_s[op.unit], self.started_s)
        for index in op.after:
            begin_s = max(begin_s, self._ends_s[index])
        self._begins_s[op.index] = begin_s

    def after(self, op: Op) -> None:
        self._end(op, self._clock.now())

    def submitted(self, op: Op) -> None:
        self._free_s[op.unit] = self._ends_s[op.index] = self._begins_s[op.index] + self._seconds[op.index]

    def returned(self, op: Op, job: Awaited) -> None:
        self._end(op, job.wait(self._clock)[1])

    def finish(self) -> tuple[float, UnitTimes]:
        end_s = max(self._ends_s)
        self._owner.ended(end_s)
        return end_s, self._tally.times()

    def _end(self, op: Op, real_s: float) -> None:
        begin_s = self._begins_s[op.index]
        deadline_s = begin_s + self._seconds[op.index]
        end_s = self._ends_s[op.index] = max(real_s, deadline_s)
        self._free_s[op.unit] = max(self._free_s[op.unit], end_s)
        self._tally.add(op, begin_s, end_s, overrun=real_s > deadline_s)


class _PacedPass(PassLine):
    def __init__(self, owner: ModelledPace, plan: StepPlan, begin_s: float, tally: OpTally) -> None:
        self._owner = owner
        self._clock = owner.clock
        self._tally = tally
        self._jobs: dict[int, HostJob] = {}
        self.started_s = begin_s
        super().__init__(plan, owner.costs, owner.host, begin_s, tally.add)

    def ended(self, op: Op, end_s: float) -> float:
        """Links and host are asked when their work is needed; the launching thread has just done what else there is."""
        return max(end_s, self._clock.now()) if op.unit is Unit.GPU or op.kind is OpKind.MOVE else end_s

    def needs(self, cohort: CohortPlan, job: HostJob) -> None:
        self._jobs[cohort.cohort] = job

    def ready(self, cohort: CohortPlan, layer: int) -> bool:
        back_s = self._owner.host.back_s
        if cohort.patience_us == AWAITED or back_s[cohort.cohort] <= self.now_s + cohort.patience_us * 1e-6:
            real_s = self._jobs[cohort.cohort].wait(self._clock)[1]
            if real_s > back_s[cohort.cohort]:
                self._tally.late()
                back_s[cohort.cohort] = real_s
        return super().ready(cohort, layer)

    def finish(self) -> tuple[float, UnitTimes]:
        self._owner.ended(self.now_s)
        return self.now_s, self._tally.times()
