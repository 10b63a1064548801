"""The simulator: the same plans, the same ops, no tensors. Ops are placed on virtual units with durations from a table.

It is also the debugger of `lower()`: whatever overlap a lowering expresses becomes visible here without any hardware.
"""

from collections.abc import Sequence

from engines.backends.op_times import OpSink, OpsSink, OpTally, one_by_one, unit_times
from engines.core.clock import VirtualClock
from engines.core.cohorts import run_pass
from engines.core.cost import CostTable
from engines.core.ops import AlikeOps, AlikeSteps, Program
from engines.core.pass_at_once import PassAtOnce
from engines.core.pass_line import HostLine, PassLine
from engines.core.pass_tally import tally_pass
from engines.core.pipeline import durations, lower, makespan, place
from engines.core.placement import Placement
from engines.core.stages import Rounds
from engines.core.steady_cost import SteadyCost, works_of
from engines.core.stretch import Repeats, Standing
from engines.core.types import Capabilities, StepPlan, StepResult, UnitTimes


class SimExecutor:
    def __init__(
        self,
        capabilities: Capabilities,
        placement: Placement,
        costs: CostTable,
        clock: VirtualClock,
        sink: OpSink | None = None,
        traced_steps: int = 200,
        alike: AlikeOps | None = None,
        alike_steps: AlikeSteps | None = None,
        sink_all: OpsSink | None = None,
    ) -> None:
        """`sink` is told of every op of the first steps, `sink_all` where it can be told of all ops of one at once;
        `alike` of all steps, by kinds of ops; where there is `alike_steps`, that is told of stretches.
        """
        self._capabilities = capabilities
        self._placement = placement
        self._costs = costs
        self._clock = clock
        self._sink = sink
        self._sink_all = one_by_one(sink) if sink is not None and sink_all is None else sink_all
        self._traced_steps = traced_steps if sink is not None else 0
        self._alike = alike
        self._alike_steps = alike_steps
        self._last_end_s = 0.0  # what its tokens cost afterwards included
        self._host = HostLine()
        self._rounds = Rounds()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def register(self, request_id: int, prompt_token_ids: Sequence[int]) -> None:
        """Token ids do not matter here: lengths come from the workload."""

    def forget(self, request_id: int) -> None:
        """Nothing is kept."""

    def run(self, plan: StepPlan) -> StepResult:
        # Deciding and launching cost time as well: a step begins no earlier than one overhead after the last one ended.
        begin_s = max(self._last_end_s + self._costs.step_overhead_s, self._clock.now())
        result = self._pass(plan, begin_s) if plan.cohorts else self._program(plan, begin_s)
        self._clock.wait_until(result.ended_s)
        self._last_end_s = result.ended_s + len(result.tokens) * self._costs.token_overhead_s
        return result

    @property
    def one_by_one(self) -> int:
        return self._traced_steps

    def repeat(self, stands: Standing, before_s: float | None) -> Repeats:
        """The loop of `run` and the driver's, without anything that the steps do not differ in."""
        plan, steps = stands.plan, stands.steps
        cost = SteadyCost(plan, self._placement, self._costs)
        traced = plan.step <= self._traced_steps
        if traced or not cost.program.serial or (self._alike is not None and self._alike_steps is None):
            steps = 0
        overhead_s, rows = self._costs.step_overhead_s, _sampled(plan)
        after_s = rows * self._costs.token_overhead_s
        now_s, last_end_s = self._clock.now(), self._last_end_s
        ran = Repeats([], [], [], [], [], len(cost.program.ops))
        for work in works_of(plan, steps):
            if before_s is not None and before_s <= now_s:
                break
            begin_s = max(last_end_s + overhead_s, now_s)
            seconds, busy_s = cost.step(work)
            end_s = begin_s + seconds
            ran.add(now_s, begin_s, end_s, busy_s, work)
            now_s, last_end_s = max(now_s, end_s), end_s + after_s
        self._clock.wait_until(now_s)
        self._last_end_s = last_end_s
        if self._alike_steps is not None and ran.works:
            for op, count, taken_s in cost.of_ops():
                self._alike_steps(op, count, taken_s, ran.works)
        return ran

    def _program(self, plan: StepPlan, begin_s: float) -> StepResult:
        if plan.places is not None:
            self._placement = plan.places
        program = lower(plan, self._placement)
        if program.devices > 1 or plan.step <= self._traced_steps:
            end_s, times = self._op_by_op(program, plan, begin_s)
        else:
            seconds, busy_s = makespan(program, plan, self._costs, begin_s, self._host.free_s, self._alike)
            end_s, times = begin_s + seconds, unit_times(busy_s, len(program.ops), 0)
        return StepResult((0,) * _sampled(plan), begin_s, end_s, times)

    def _pass(self, plan: StepPlan, begin_s: float) -> StepResult:
        layers = len(self._placement.layers)
        if plan.step <= self._traced_steps:
            tally = OpTally(plan.step, self._sink)
            line = PassLine(plan, self._costs, self._host, begin_s, tally.add)
            answers, finished = run_pass(plan.cohorts, layers, line)
            end_s, times = line.now_s, tally.times()
        else:
            at_once = PassAtOnce(plan, layers, self._costs, self._host, begin_s)
            answers, finished = at_once.run()
            end_s, times = at_once.now_s, unit_times(at_once.busy_s, at_once.ops, 0)
        if self._alike is not None:
            tally_pass(plan, answers, layers, self._costs, self._alike)
        landed = sum([len(cohort.slots) for cohort in plan.cohorts if cohort.cohort in finished])
        sampled = (0,) * (_sampled(plan) + landed)
        return StepResult(sampled, begin_s, end_s, times, answers, finished)

    def _op_by_op(self, program: Program, plan: StepPlan, begin_s: float) -> tuple[float, UnitTimes]:
        """For the timeline, and where batches go round over several accelerators: what these and their links are busy
        for is said as of one of them.
        """
        devices, seconds = program.devices, durations(program, plan, self._costs, self._alike)
        if devices > 1:
            ends_s = self._rounds.place(program, seconds, begin_s, self._costs.step_overhead_s)
        else:
            ends_s = place(program, seconds, begin_s, self._host.free_s)
        tally = OpTally(plan.step, self._sink)
        tally.add_all(program.ops, seconds, ends_s, self._sink_all if plan.step <= self._traced_steps else None)
        times = tally.times()
        if devices > 1:
            times = times._replace(
                gpu_s=times.gpu_s / devices, h2d_s=times.h2d_s / devices, d2h_s=times.d2h_s / devices
            )
        return max(begin_s, *ends_s), times

    def close(self) -> None:
        """Nothing is held."""


def _sampled(plan: StepPlan) -> int:
    return sum(
        len(batch.decode_slots) + len(batch.host_slots) + sum([chunk.samples for chunk in batch.prefills])
        for batch in plan.batches
    )
