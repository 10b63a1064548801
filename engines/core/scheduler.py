"""`EngineCore`: the one scheduler. It owns the queues and the blocks, asks the policy, checks the answer, commits it.

    plan = core.schedule(now)          integers only
    result = executor.run(plan)
    events = core.commit(plan, result)

Not here: what a policy prefers (policy.py and the engines' own pages), what a step costs, what it computes.
"""

from bisect import bisect, insort
from collections import deque
from collections.abc import Sequence

from engines.core.cohorts import Cohort
from engines.core.cost import Predictor
from engines.core.errors import IntegrityError, PolicyError
from engines.core.kv import KVManager
from engines.core.placement import Placement
from engines.core.policy import (
    BatchDecision,
    CohortDecision,
    Decision,
    LearningPolicy,
    Policy,
    Prefill,
    ReusingPolicy,
    SteadyPolicy,
    View,
)
from engines.core.request import Phase, Request
from engines.core.reuse import ReusingKv
from engines.core.stretch import Grown, Repeats, Standing, Standings, Stretch, standing
from engines.core.types import (
    Batch,
    BlockChanges,
    Capabilities,
    CohortPlan,
    Limits,
    Mode,
    Move,
    PreemptionKind,
    PrefillChunk,
    Refusal,
    RequestSpec,
    SlotStart,
    StepEvents,
    StepPlan,
    StepResult,
    Tier,
)


class _Draft:
    """A plan being written: the columns of `BlockChanges` and the moves, in the order they happened."""

    __slots__ = ("admitted", "ends", "grown_blocks", "grown_slots", "moves", "preempted", "starts")

    def __init__(self, ends: list[int]) -> None:
        self.ends = ends
        self.starts: list[SlotStart] = []
        self.grown_slots: list[int] = []
        self.grown_blocks: list[int] = []
        self.moves: list[Move] = []
        self.preempted: list[int] = []
        self.admitted: list[int] = []

    def begin(self, request: Request) -> None:
        """Its slot, with the blocks that it holds already."""
        self.starts.append(SlotStart(request.slot, request.request_id, request.tier))
        self.grown_slots.extend([request.slot] * len(request.blocks))
        self.grown_blocks.extend(request.blocks)

    def changes(self) -> BlockChanges:
        return BlockChanges(tuple(self.ends), tuple(self.starts), tuple(self.grown_slots), tuple(self.grown_blocks))


def reuses_kv(policy: Policy) -> bool:
    return isinstance(policy, ReusingPolicy) and policy.keep_preempted_kv


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
        self._steady = policy if isinstance(policy, SteadyPolicy) and self._learner is None else None
        self._blocked = False  # whoever waits was not let in, and will not be while those inside only take more
        self._content_ends = False  # a token may end a request
        self._kept_kv = ReusingKv(capabilities) if reuses_kv(policy) else None
        self.kv = self._kept_kv or KVManager(capabilities)
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()
        self.cohorts: list[Cohort] = []  # in flight, oldest first
        self._requests: dict[int, Request] = {}
        self._predictor = predictor
        self._page_tokens = {tier: pool.page_tokens for tier, pool in self.kv.pools.items()}
        self._free_slots = list(range(limits.max_batch - 1, -1, -1))
        self._ended_slots: list[int] = []  # unbound since the last plan
        self._sampling: list[Request] = []  # rows of the plan in progress that yield a token, in its order
        self._computing: list[tuple[Request, int]] = []  # prefills of the plan in progress
        self._step = 0
        self._sequence = 0
        self._last_cohort = 0
        self._last_mode: Mode | None = None
        self._plan_open = False

    # --- requests come and go ----------------------------------------------------------------------------------------

    def submit(self, spec: RequestSpec) -> Refusal | None:
        """Queue a request, or say why it can never run here."""
        reason = self._why_never(spec)
        if reason:
            return Refusal(spec.request_id, reason)
        if spec.request_id in self._requests:
            raise ValueError(f"request {spec.request_id} was submitted twice")
        request = Request(spec, self._sequence)
        self._sequence += 1
        self._requests[spec.request_id] = request
        self._blocked = self._blocked and bool(self.waiting)  # behind others, nobody is asked
        self._content_ends = self._content_ends or bool(spec.stop_ids)
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
        self._blocked = False
        self._end(request)
        return True

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting or self.cohorts)

    # --- one step ----------------------------------------------------------------------------------------------------

    def schedule(self, now_s: float) -> StepPlan | None:
        """The next step, or None when nobody wants one. `now_s` is the only time a decision may depend on."""
        if self._plan_open:
            raise RuntimeError("commit the last plan before scheduling the next")
        if not self.has_work:
            return None
        decision = self.policy.decide(self._view())
        draft = _Draft(self._ended_slots)
        self._ended_slots = []
        self._sampling.clear()
        self._computing.clear()
        self._preempt(decision, draft)
        found_tokens = self._find(decision) if decision.found else 0
        self._move(decision.moves, draft)
        self._admit(decision, draft)
        batches = tuple(self._batch(batch, draft) for batch in decision.batches)
        cohorts = tuple([self._fly(cohort, draft) for cohort in decision.cohorts])
        tokens = sum([batch.tokens for batch in batches])
        if not (tokens or cohorts or draft.moves or draft.preempted):
            raise PolicyError(f"{self.policy.name} decided an empty step with {len(self.waiting)} requests waiting")
        self._check_budget(tokens + sum([len(cohort.slots) for cohort in cohorts]))
        self._step += 1
        self._plan_open = True
        self._last_mode = decision.mode
        if decision.placement is not None:
            self.placement = decision.placement
        self._blocked = self._steady is not None and bool(self.waiting) and self._only_decodes(decision, draft)
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
        tokens, sampling = result.tokens, self._sampling
        if self._learner is not None:
            self._learner.observe(self._view(), plan, result)
        if plan.cohorts:
            tokens = self._land(plan, result)
        if len(tokens) != len(sampling):
            raise IntegrityError(f"{len(sampling)} rows sample, the executor returned {len(tokens)} tokens")
        for request, computed in self._computing:
            request.computed += computed
        finished = []
        for request, token in zip(sampling, tokens, strict=True):
            request.computed = request.known
            request.known += 1
            if request.known == request.target or token in request.stop_ids:
                finished.append(request)
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
        rows, policy = self.running, self._steady
        if policy is None or not rows or self._plan_open or self._content_ends or self.cohorts or self.placement.stages:
            return None
        if (self.waiting and not self._blocked) or len(rows) > self.limits.max_batch_tokens:
            return None
        mode = policy.steady(rows)
        if mode is None or any(request.known - request.computed != 1 for request in rows):
            return None
        free = {tier: len(pool.free) for tier, pool in self.kv.pools.items()}
        found = standing(self._step + 1, mode, self._ended_slots, rows, free, self._page_tokens)
        return found if found.steps else None

    def repeat(self, stands: Standing, repeats: Repeats) -> Stretch:
        """Take in as many of them as there were: schedule and commit of them all."""
        steps = len(repeats)
        if stands.plan.step != self._step + 1 or not 0 < steps <= stands.steps:
            raise RuntimeError("only what stands now can be repeated, and only while it does")
        before, rows = self._standings(), stands.rows
        grown = []
        for step, row in stands.growths:
            if step > steps:
                break
            request = rows[row]
            [block] = self.kv.grow(request, request.capacity + 1)
            grown.append(Grown(step, request.slot, block, request.tier))
        for request in rows:
            request.computed += steps
            request.known += steps
        self._step += steps
        self._ended_slots = []
        self._last_mode = stands.plan.mode
        ids, on_host = [request.request_id for request in rows], self._on_host(rows)
        finished = [request for request in rows if request.known == request.target]
        if finished:
            self._finish(finished)
        ended = [request.request_id for request in finished]
        return Stretch(stands.plan, repeats, grown, ids, on_host, ended, before, self._standings())

    def _standings(self) -> Standings:
        used = {tier: pool.used for tier, pool in self.kv.pools.items()}
        return Standings(len(self.running), len(self.waiting), used)

    def _only_decodes(self, decision: Decision, draft: _Draft) -> bool:
        """Everybody inside, and nothing else was decided."""
        if len(decision.batches) != 1 or self.cohorts or draft.starts or draft.moves or draft.preempted:
            return False
        [batch] = decision.batches
        return not batch.prefills and len(batch.decodes) + len(batch.host_decodes) == len(self.running)

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

    def _preempt(self, decision: Decision, draft: _Draft) -> None:
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
                self._relocate(request, Tier.HOST, draft)
            else:
                self.kv.evict(request)
            request.phase = Phase.WAITING
            request.preemptions += 1
            self.waiting.insert(bisect(self.waiting, request.sequence, key=_arrival), request)
            draft.preempted.append(request.request_id)

    def _find(self, decision: Decision) -> int:
        """Before anybody is given a block: what was found is what those who were counted before leave."""
        tokens, kept = 0, self._kept_kv
        for request, blocks in decision.found:
            if kept is None or request.phase is not Phase.WAITING or not kept.reclaim(request, blocks):
                raise PolicyError(f"{request!r} does not find {blocks} of its blocks again")
            tokens += request.computed
        return tokens

    def _youngest(self, tier: Tier, leaving: set[Request]) -> Request | None:
        """Of those that may go: who is in flight cannot, and who moves away makes room as well."""
        for request in reversed(self.running):
            if request.tier is tier and not request.in_flight and request not in leaving:
                return request
        return None

    def _move(self, moves: Sequence[tuple[Request, Tier]], draft: _Draft) -> None:
        """A running request keeps its slot, whose table starts afresh."""
        for request, tier in moves:
            self._relocate(request, tier, draft)
            if request.phase is Phase.RUNNING:
                draft.ends.append(request.slot)
                draft.begin(request)

    def _relocate(self, request: Request, tier: Tier, draft: _Draft) -> None:
        source_tier = request.tier
        if not self.kv.can_move(request, tier):
            raise PolicyError(f"{request!r} cannot move to {tier.name}: no room there, or a cohort still reads it")
        source, target = self.kv.move(request, tier)
        draft.moves.append(Move(request.request_id, source_tier, source, tier, target, request.computed))

    def _admit(self, decision: Decision, draft: _Draft) -> None:
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

    def _bind(self, request: Request, tier: Tier, draft: _Draft) -> None:
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

    def _batch(self, decision: BatchDecision, draft: _Draft) -> Batch:
        decodes, host = decision.decodes, decision.host_decodes
        for request in host:
            if request.tier is not Tier.HOST or request.in_flight:
                raise PolicyError(f"{request!r} cannot decode on the host: it is elsewhere, or flies with a cohort")
        for rows in (decodes, host):
            for request in rows:
                if request.computed == request.capacity:
                    self._grow(request, request.known, draft)
        self._sampling.extend(decodes)
        self._sampling.extend(host)
        chunks = tuple([self._chunk(prefill, draft) for prefill in decision.prefills])
        return Batch(
            tuple([r.slot for r in decodes]),
            tuple([r.computed for r in decodes]),
            chunks,
            tuple([r.slot for r in host]),
            tuple([r.computed for r in host]),
        )

    def _chunk(self, prefill: Prefill, draft: _Draft) -> PrefillChunk:
        request, tokens = prefill.request, prefill.tokens
        if request.phase is not Phase.RUNNING or not 0 < tokens <= request.pending:
            raise PolicyError(f"{request!r} cannot prefill {tokens} tokens")
        end = request.computed + tokens
        self._grow(request, end, draft)
        samples = end == request.known
        if samples:
            self._sampling.append(request)
        else:
            self._computing.append((request, tokens))
        return PrefillChunk(request.slot, request.request_id, request.computed, tokens, samples, request.tier)

    def _grow(self, request: Request, tokens: int, draft: _Draft) -> None:
        if not self.kv.can_grow(request, tokens):
            raise PolicyError(f"{request!r} needs room for {tokens} tokens that {request.tier.name} does not have")
        given = self.kv.grow(request, tokens)
        draft.grown_slots.extend([request.slot] * len(given))
        draft.grown_blocks.extend(given)

    # --- cohorts -----------------------------------------------------------------------------------------------------

    def _fly(self, decision: CohortDecision, draft: _Draft) -> CohortPlan:
        cohort = decision.flying
        if cohort is None:
            self._last_cohort += 1
            cohort = Cohort(self._last_cohort, decision.requests)
            self.cohorts.append(cohort)
            for request in cohort.requests:
                if request.phase is not Phase.RUNNING or request.tier is not Tier.HOST or request.pending != 1:
                    raise PolicyError(f"{request!r} cannot fly: cohorts decode requests that run on the host")
                if request.in_flight:
                    raise PolicyError(f"{request!r} flies already")
                if request.computed == request.capacity:
                    self._grow(request, request.known, draft)
                request.in_flight = True
        return cohort.plan(decision.patience_us)

    def _land(self, plan: StepPlan, result: StepResult) -> list[int]:
        """Cohorts move on; those at the end add their requests to the rows that sample. Returns the tokens of them all.

        Who was aborted in flight gives its slot and its pages back only now.
        """
        rows = len(self._sampling)
        tokens = list(result.tokens[:rows])
        flying = {cohort.cohort: cohort for cohort in self.cohorts}
        for planned in plan.cohorts:
            flying[planned.cohort].layer = max(planned.parked_layer, 0)
        for answer in result.answers:
            flying[answer.guard.cohort].layer += answer.ready
        for number in result.finished_cohorts:
            cohort = flying[number]
            self.cohorts.remove(cohort)
            landed = result.tokens[rows : rows + len(cohort.requests)]
            rows += len(cohort.requests)
            if len(landed) != len(cohort.requests):
                raise IntegrityError(f"cohort {number} landed {len(cohort.requests)} rows and {len(landed)} tokens")
            for request, token in zip(cohort.requests, landed, strict=True):
                request.in_flight = False
                if request.phase is Phase.ENDED:
                    self.kv.settle(request.request_id)
                    self._unbind(request)
                else:
                    self._sampling.append(request)
                    tokens.append(token)
        tokens.extend(result.tokens[rows:])  # none, or commit says so
        return tokens

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
        self._blocked = False
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

    def _why_never(self, spec: RequestSpec) -> str | None:
        if spec.prompt_tokens < 1 or spec.max_new_tokens < 1:
            return (
                f"it asks for {spec.prompt_tokens} prompt and {spec.max_new_tokens} new tokens; both must be at least 1"
            )
        total = spec.prompt_tokens + spec.max_new_tokens
        if total > self.capabilities.max_model_tokens:
            return f"it needs {total} tokens, the model's context ends at {self.capabilities.max_model_tokens}"
        pool = self.kv.pools[Tier.ACCEL]
        if pool.blocks_for(total - 1) > pool.total:
            return (
                f"it needs KV for {total - 1} tokens ({pool.blocks_for(total - 1)} blocks of {pool.page_tokens}), "
                f"the accelerator holds {pool.total * pool.page_tokens} ({pool.total} blocks)"
            )
        return None

    # --- invariants --------------------------------------------------------------------------------------------------

    def check_integrity(self) -> None:
        """Blocks, slots, queues and counters add up. Cheap enough for tests to call after every step."""
        waiting = list(self.waiting)
        self.kv.check_integrity(self.running + waiting)
        for queue in (self.running, waiting):
            order = [request.sequence for request in queue]
            if order != sorted(order):
                raise IntegrityError(f"a queue is not first come, first served: {order}")
        aborted = [request for cohort in self.cohorts for request in cohort.requests if request.phase is Phase.ENDED]
        slots = sorted(self._free_slots + [request.slot for request in self.running + aborted])
        if slots != list(range(self.limits.max_batch)):
            raise IntegrityError(f"slots lost or held twice: {slots}")
        standing = len(self.running) + len(waiting)
        if len(self._requests) != standing:
            raise IntegrityError(f"{len(self._requests)} requests are known, {standing} stand in a queue")
        for request in self.running + waiting:
            if not 0 <= request.computed < request.known < request.target:
                raise IntegrityError(f"counters of {request!r} are out of order")
