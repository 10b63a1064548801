"""`EngineCore`: the one scheduler. It owns the queues and the blocks, asks the policy, checks the answer, commits it.

    plan = core.schedule(now)          integers only
    result = executor.run(plan)
    events = core.commit(plan, result)

Not here: what a policy prefers (policy.py and the engines' own pages), what a step costs, what it computes.
"""

from bisect import bisect, insort
from collections import deque
from collections.abc import Sequence

from engines.core.airborne import Airborne
from engines.core.cost import Predictor
from engines.core.draft import Draft
from engines.core.errors import IntegrityError, PolicyError
from engines.core.integrity import check_counters, check_order, check_slots
from engines.core.kv import KVManager
from engines.core.placement import Placement
from engines.core.policy import Decision, LearningPolicy, Policy, View, reuses_kv
from engines.core.refusal import why_never
from engines.core.request import Phase, Request
from engines.core.reuse import ReusingKv
from engines.core.steadiness import Steadiness
from engines.core.stretch import Repeats, Standing, Stretch
from engines.core.types import (
    Capabilities,
    Limits,
    Mode,
    PreemptionKind,
    Refusal,
    RequestSpec,
    StepEvents,
    StepPlan,
    StepResult,
    Tier,
)


def _arrival(request: Request) -> int:
    return request.sequence


class EngineCore:
    def __init__(
        self,
        policy: Policy,
        capabilities: Capabilities,
        limits: Limits,
        predictor: Predictor | None,
        placement: Placement | None = None,
    ) -> None:
        """`placement`: of a policy that was asked for it before the capabilities were known."""
        self.policy = policy
        self.capabilities = capabilities
        self.limits = limits
        self.placement = policy.partition(capabilities, predictor) if placement is None else placement
        self._learner = policy if isinstance(policy, LearningPolicy) else None
        self._kept_kv = ReusingKv(capabilities) if reuses_kv(policy) else None
        self.kv = self._kept_kv or KVManager(capabilities)
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()
        self._airborne = Airborne(self.kv)
        self.cohorts = self._airborne.cohorts
        self._steadiness = Steadiness(policy, self.kv, limits)
        self._requests: dict[int, Request] = {}
        self._predictor = predictor
        self._page_tokens = {tier: pool.page_tokens for tier, pool in self.kv.pools.items()}
        self._free_slots = list(range(limits.max_batch - 1, -1, -1))
        self._ended_slots: list[int] = []  # unbound since the last plan
        self._draft = Draft(self.kv, [])  # of the plan in progress
        self._step = 0
        self._sequence = 0
        self._last_mode: Mode | None = None
        self._plan_open = False

    # --- requests come and go ----------------------------------------------------------------------------------------

    def submit(self, spec: RequestSpec) -> Refusal | None:
        """Queue a request, or say why it can never run here."""
        reason = why_never(spec, self.kv.pools[Tier.ACCEL], self.capabilities.max_model_tokens)
        if reason:
            return Refusal(spec.request_id, reason)
        if spec.request_id in self._requests:
            raise ValueError(f"request {spec.request_id} was submitted twice")
        request = Request(spec, self._sequence)
        self._sequence += 1
        self._requests[spec.request_id] = request
        self._steadiness.submitted(spec, bool(self.waiting))
        self.waiting.append(request)
        return None

    def abort(self, request_id: int) -> bool:
        """Drop a request between steps; False when it has already ended."""
        request = self._requests.get(request_id)
        if request is None:
            return False
        if self._plan_open:
            raise RuntimeError("abort between commit and schedule, not while a plan is running")
        if request.phase is Phase.RUNNING:
            self.running.remove(request)
            if not request.in_flight:  # else its cohort brings the slot back
                self._unbind(request)
        else:
            self.waiting.remove(request)
        self._steadiness.somebody_left()
        self._end(request)
        return True

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting or self.cohorts)

    @property
    def steps(self) -> int:
        """Scheduled so far."""
        return self._step

    # --- one step ----------------------------------------------------------------------------------------------------

    def schedule(self, now_s: float) -> StepPlan | None:
        """The next step, or None when nobody wants one. `now_s` is the only time a decision may depend on."""
        if self._plan_open:
            raise RuntimeError("commit the last plan before scheduling the next")
        if not self.has_work:
            return None
        decision = self.policy.decide(self._view())
        draft = self._draft = Draft(self.kv, self._ended_slots)
        self._ended_slots = []
        self._preempt(decision, draft)
        found_tokens = draft.find(decision.found) if decision.found else 0
        for request, tier in decision.moves:
            draft.move(request, tier)
        self._admit(decision, draft)
        batches = tuple([draft.batch(batch) for batch in decision.batches])
        cohorts = tuple([self._airborne.fly(cohort, draft) for cohort in decision.cohorts])
        tokens = sum([batch.tokens for batch in batches])
        if not (tokens or cohorts or draft.moves or draft.preempted):
            raise PolicyError(f"{self.policy.name} decided an empty step with {len(self.waiting)} requests waiting")
        self._check_budget(tokens + sum([len(cohort.slots) for cohort in cohorts]))
        self._step += 1
        self._plan_open = True
        self._last_mode = decision.mode
        if decision.placement is not None:
            self.placement = decision.placement
        self._steadiness.decided(decision, draft, len(self.running), len(self.waiting), len(self.cohorts))
        return StepPlan(
            self._step,
            decision.mode,
            batches,
            draft.changes(),
            tuple(draft.moves),
            cohorts,
            preempted=tuple(draft.preempted),
            admitted=tuple(draft.admitted),
            places=decision.placement,
            found_tokens=found_tokens,
        )

    def commit(self, plan: StepPlan, result: StepResult) -> StepEvents:
        """Take the step's outcome in: counters move, tokens are handed out, whoever is done leaves."""
        if not self._plan_open or plan.step != self._step:
            raise RuntimeError(f"plan {plan.step} is not the one in progress")
        tokens, sampling = result.tokens, self._draft.sampling
        if self._learner is not None:
            self._learner.observe(self._view(), plan, result)
        if plan.cohorts:
            tokens, aborted = self._airborne.land(plan, result, sampling)
            for request in aborted:
                self._unbind(request)
        if len(tokens) != len(sampling):
            raise IntegrityError(f"{len(sampling)} rows sample, the executor returned {len(tokens)} tokens")
        for request, computed in self._draft.computing:
            request.computed += computed
        for request in sampling:
            request.computed = known = request.known
            request.known = known + 1
        finished = [request for request in sampling if request.known == request.target]
        if self._steadiness.content_ends:
            pairs = zip(sampling, tokens, strict=True)
            finished = [each for each, token in pairs if each.known == each.target or token in each.stop_ids]
        request_ids = [request.request_id for request in sampling]
        on_host = self._on_host(sampling)
        if finished:
            self._finish(finished)
        self._plan_open = False
        return StepEvents(
            request_ids,
            tokens,
            [request.request_id for request in finished],
            plan.admitted,
            plan.preempted,
            on_host,
        )

    # --- many steps at once ------------------------------------------------------------------------------------------

    def standing(self) -> Standing | None:
        """The next steps, where the policy need not be asked about them; for as long as nobody else is submitted."""
        if self._plan_open or self.cohorts or self.placement.stages:
            return None
        return self._steadiness.standing(self._step + 1, self._ended_slots, self.running, len(self.waiting))

    def repeat(self, stands: Standing, repeats: Repeats) -> Stretch:
        """Take in as many of them as there were: schedule and commit of them all."""
        steps = len(repeats)
        if stands.plan.step != self._step + 1 or not 0 < steps <= stands.steps:
            raise RuntimeError("only what stands now can be repeated, and only while it does")
        rows = stands.rows
        before = self._steadiness.standings(len(self.running), len(self.waiting))
        grown = self._steadiness.take(stands, steps)
        self._step += steps
        self._ended_slots = []
        self._last_mode = stands.plan.mode
        ids, on_host = [request.request_id for request in rows], self._on_host(rows)
        finished = [request for request in rows if request.known == request.target]
        if finished:
            self._finish(finished)
        ended = [request.request_id for request in finished]
        after = self._steadiness.standings(len(self.running), len(self.waiting))
        return Stretch(stands.plan, repeats, grown, ids, on_host, ended, before, after)

    # --- applying a decision -----------------------------------------------------------------------------------------

    def _view(self) -> View:
        return View(
            running=self.running,
            waiting=self.waiting,
            free={tier: len(pool.free) for tier, pool in self.kv.pools.items()},
            page_tokens=self._page_tokens,
            limits=self.limits,
            capabilities=self.capabilities,
            predict=self._predictor,
            cohorts=self.cohorts,
            last_mode=self._last_mode,
            placement=self.placement,
            kept_kv=self._kept_kv,
        )

    def _preempt(self, decision: Decision, draft: Draft) -> None:
        leaving = {request for request, _ in decision.moves}
        for preemption in decision.preemptions:
            request = preemption.request
            if request is not self._youngest(request.tier, leaving):
                raise PolicyError(f"{request!r} is preempted, but the youngest of its tier has to go first")
            self.running.remove(request)
            draft.ends.append(request.slot)
            self._free_slots.append(request.slot)
            request.slot = -1
            if preemption.kind is PreemptionKind.SWAP:
                draft.relocate(request, Tier.HOST)
            else:
                self.kv.evict(request)
            request.phase = Phase.WAITING
            request.preemptions += 1
            self.waiting.insert(bisect(self.waiting, request.sequence, key=_arrival), request)
            draft.preempted.append(request.request_id)

    def _youngest(self, tier: Tier, leaving: set[Request]) -> Request | None:
        """Of those that may go: who is in flight cannot, and who moves away makes room as well."""
        for request in reversed(self.running):
            if request.tier is tier and not request.in_flight and request not in leaving:
                return request
        return None

    def _admit(self, decision: Decision, draft: Draft) -> None:
        """First come, first served: whoever a batch names from the queue must stand at its head."""
        waiting = self.waiting
        if not waiting:
            return
        named: dict[int, Tier] = {}
        for batch in decision.batches:
            named.update(
                (prefill.request.request_id, prefill.tier)
                for prefill in batch.prefills
                if prefill.request.phase is Phase.WAITING
            )
            named.update((r.request_id, r.tier) for r in batch.decodes if r.phase is Phase.WAITING)
        while waiting and waiting[0].request_id in named:
            request = waiting.popleft()
            self._bind(request, named.pop(request.request_id), draft)
        for request, _ in decision.found:
            if request.phase is Phase.WAITING:
                raise PolicyError(f"{request!r} is given its blocks, but not admitted")
        if named:
            raise PolicyError(f"{self.policy.name} admits requests {sorted(named)} before their elders")

    def _bind(self, request: Request, tier: Tier, draft: Draft) -> None:
        if not self._free_slots:
            raise PolicyError(f"{self.policy.name} admits more than max_batch = {self.limits.max_batch} requests")
        if request.blocks and request.tier is not tier:
            raise PolicyError(f"{request!r} is admitted to {tier.name} while its KV is on {request.tier.name}")
        request.tier = tier
        request.slot = self._free_slots.pop()
        request.phase = Phase.RUNNING
        insort(self.running, request, key=_arrival)
        draft.begin(request)
        if not request.started:
            request.started = True
            draft.admitted.append(request.request_id)

    def _check_budget(self, tokens: int) -> None:
        if tokens > self.limits.max_batch_tokens:
            raise PolicyError(f"{self.policy.name} puts {tokens} tokens in a step of {self.limits.max_batch_tokens}")

    def _on_host(self, sampling: Sequence[Request]) -> Sequence[int]:
        if not self.capabilities.host.blocks:
            return ()
        host = Tier.HOST
        return [request.request_id for request in sampling if request.tier is host]

    # --- leaving -----------------------------------------------------------------------------------------------------

    def _finish(self, finished: list[Request]) -> None:
        self._steadiness.somebody_left()
        gone = set(map(id, finished))
        self.running = [request for request in self.running if id(request) not in gone]
        for request in finished:
            self._unbind(request)
            self._end(request)

    def _unbind(self, request: Request) -> None:
        self._ended_slots.append(request.slot)
        self._free_slots.append(request.slot)
        request.slot = -1

    def _end(self, request: Request) -> None:
        self.kv.release(request)
        request.phase = Phase.ENDED
        del self._requests[request.request_id]

    # --- invariants --------------------------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """Blocks, slots, queues and counters add up. Cheap enough for tests to call after every step."""
        running, waiting = self.running, list(self.waiting)
        self.kv.check_integrity(running + waiting)
        check_order(running)
        check_order(waiting)
        check_slots(self._free_slots, running + self._airborne.aborted, self.limits.max_batch)
        check_counters(running + waiting, len(self._requests))
