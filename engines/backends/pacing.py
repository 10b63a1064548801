"""How long an op takes on the emulated accelerator: as long as it takes (native), or its modelled duration (paced).

Paced: every op computes its real tensors and completes no earlier than a machine of the catalogue would have. The chain
runs on deadlines: an op begins, on the paced time line, when what it needs has ended there, and real work runs ahead of
that line as far as it can; the step waits once, at its end. Waiting before every op as well would compute each with cold
caches, 3 to 5 times slower, and nobody could see the difference. An op that is not done by its deadline is an overrun;
too many make a cell invalid.
"""

from typing import Protocol

from engines.backends.op_times import OpSink, OpTally
from engines.core.clock import Clock
from engines.core.cost import CostTable
from engines.core.pipeline import Op, Program, durations
from engines.core.types import StepPlan, Unit, UnitTimes


class StepPace(Protocol):
    """Watches the ops of one step as the launching thread runs them in order."""

    started_s: float

    def before(self, op: Op) -> None:
        """The op's real work begins now."""

    def after(self, op: Op) -> None:
        """The op's real work is done."""

    def finish(self) -> tuple[float, UnitTimes]:
        """All ops have ended; when, and what they took."""


class Pace(Protocol):
    def step(self, plan: StepPlan, program: Program) -> StepPace: ...


class NativePace:
    """Full speed, measured."""

    def __init__(self, clock: Clock, sink: OpSink | None = None) -> None:
        self._clock = clock
        self._sink = sink

    def step(self, plan: StepPlan, program: Program) -> "_NativeStep":
        return _NativeStep(self._clock, OpTally(plan.step, self._sink))


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

    def finish(self) -> tuple[float, UnitTimes]:
        return self._op_started_s, self._tally.times()


class ModelledPace:
    """The proportions of another machine, from the same cost table that the simulator uses."""

    def __init__(self, clock: Clock, costs: CostTable, sink: OpSink | None = None) -> None:
        self._clock = clock
        self._costs = costs
        self._sink = sink
        self._last_end_s = 0.0

    def step(self, plan: StepPlan, program: Program) -> "_PacedStep":
        # The same rule as in the simulator: one overhead between steps, in which the real scheduler has to fit.
        begin_s = max(self._last_end_s + self._costs.step_overhead_s, self._clock.now())
        return _PacedStep(
            self, self._clock, durations(program, plan, self._costs), begin_s, OpTally(plan.step, self._sink)
        )

    def ended(self, end_s: float) -> None:
        self._last_end_s = end_s


class _PacedStep:
    def __init__(self, owner: ModelledPace, clock: Clock, seconds: list[float], begin_s: float, tally: OpTally) -> None:
        self._owner = owner
        self._clock = clock
        self._seconds = seconds
        self._tally = tally
        self.started_s = begin_s
        self._ends_s: list[float] = []
        self._free_s: dict[Unit, float] = {}
        self._op_begin_s = begin_s

    def before(self, op: Op) -> None:
        begin_s = self._free_s.get(op.unit, self.started_s)
        for index in op.after:
            begin_s = max(begin_s, self._ends_s[index])
        self._op_begin_s = begin_s

    def after(self, op: Op) -> None:
        deadline_s = self._op_begin_s + self._seconds[op.index]
        now_s = self._clock.now()
        end_s = max(now_s, deadline_s)
        self._free_s[op.unit] = end_s
        self._ends_s.append(end_s)
        self._tally.add(op, self._op_begin_s, end_s, overrun=now_s > deadline_s)

    def finish(self) -> tuple[float, UnitTimes]:
        end_s = max(self._ends_s)
        self._clock.wait_until(end_s)
        self._owner.ended(end_s)
        return end_s, self._tally.times()
