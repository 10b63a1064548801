"""Our own engines behind the driver's seam (engines/core/adapter.py): decide, run, commit, and let others look on."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from engines.core.adapter import Deliveries, Delivery, Submission
from engines.core.clock import stopwatch
from engines.core.executor import Executor, RepeatingExecutor
from engines.core.scheduler import EngineCore
from engines.core.stretch import Stretch
from engines.core.types import Refusal, RequestSpec, StepPlan, StepResult, Tier
from harness.journal import Journal


class StepSight(NamedTuple):
    """One step as an onlooker sees it: nothing that a decision depends on."""

    plan: StepPlan
    result: StepResult
    scheduler_s: float
    running: int
    waiting: int
    accel_blocks_used: int
    host_blocks_used: int


class StepObserver(Protocol):
    def step(self, sight: StepSight) -> None: ...

    def stretch(self, stretch: Stretch, scheduler_s: float) -> None:
        """Many steps in which nothing was decided; seconds of the scheduler for each."""


class CoreAdapter:
    """One of our engines: decide, run, commit. The journal sees all that a decision depends on."""

    def __init__(
        self,
        core: EngineCore,
        executor: Executor,
        resolved: dict[str, object],
        journal: Journal | None = None,
        observers: Sequence[StepObserver] = (),
    ) -> None:
        self._core = core
        self._executor = executor
        self._resolved = resolved
        self._journal = journal
        self._observers = observers
        self._repeating = executor if isinstance(executor, RepeatingExecutor) else None

    def start(self) -> dict[str, object]:
        return self._resolved

    def submit(self, submission: Submission) -> Refusal | None:
        spec = RequestSpec(
            submission.request_id, submission.prompt_tokens, submission.max_new_tokens, submission.stop_ids
        )
        refusal = self._core.submit(spec)
        if self._journal is not None:
            self._journal.submitted(spec)
        if refusal is None:
            self._executor.register(submission.request_id, submission.token_ids)
        return refusal

    @property
    def busy(self) -> bool:
        return self._core.has_work

    def poll(self, now_s: float) -> Delivery | None:
        begin = stopwatch()
        plan = self._core.schedule(now_s)
        scheduler_s = stopwatch() - begin
        if plan is None:
            return None
        result = self._executor.run(plan)
        begin = stopwatch()
        events = self._core.commit(plan, result)
        scheduler_s += stopwatch() - begin
        for request_id in events.finished:
            self._executor.forget(request_id)
        if self._journal is not None:
            self._journal.step(now_s, plan, result)
        if self._observers:
            sight = self._sight(plan, result, scheduler_s)
            for observer in self._observers:
                observer.step(sight)
        return Delivery(
            result.ended_s,
            events.request_ids,
            events.token_ids,
            events.finished,
            events.admitted,
            events.preempted,
            scheduled_s=now_s,
            on_host=events.on_host,
        )

    def repeat(self, before_s: float | None) -> Deliveries | None:
        """Steps that need no deciding, on an executor that can tell what many of them take."""
        if self._repeating is None or self._core.steps < self._repeating.one_by_one:
            return None
        begin = stopwatch()
        stands = self._core.standing()
        scheduler_s = stopwatch() - begin
        if stands is None:
            return None
        repeats = self._repeating.repeat(stands, before_s)
        if not len(repeats):
            return None
        begin = stopwatch()
        stretch = self._core.repeat(stands, repeats)
        scheduler_s += stopwatch() - begin
        for request_id in stretch.finished:
            self._executor.forget(request_id)
        if self._journal is not None:
            self._journal.stretch(stretch)
        for observer in self._observers:
            observer.stretch(stretch, scheduler_s / len(stretch))
        return Deliveries(repeats.decided_s, repeats.ended_s, stretch.request_ids, stretch.on_host, stretch.finished)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._executor.close()

    def _sight(self, plan: StepPlan, result: StepResult, scheduler_s: float) -> StepSight:
        core = self._core
        pools = core.kv.pools
        return StepSight(
            plan,
            result,
            scheduler_s,
            len(core.running),
            len(core.waiting),
            pools[Tier.ACCEL].used,
            pools[Tier.HOST].used,
        )
