"""The seam above the plan: what a policy sees (`View`), says (`Decision`), and the scratch ledger between (`Proposal`).

A policy holds no request state. It fills a proposal, may price and trim it, and hands over the decision; nothing is
allocated until the core has checked the decision and commits it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from engines.core.cohorts import Cohort
from engines.core.cost import Predictor
from engines.core.memory import Room
from engines.core.placement import Placement
from engines.core.request import Phase, Request
from engines.core.reuse import ComingBack, ReusingKv
from engines.core.types import Capabilities, Limits, Mode, PreemptionKind, StepPlan, StepResult, Tier


@dataclass(frozen=True, slots=True)
class Preemption:
    request: Request
    kind: PreemptionKind


@dataclass(frozen=True, slots=True)
class Prefill:
    """Compute `tokens` more prompt tokens; a waiting request is admitted to `tier` by this."""

    request: Request
    tokens: int
    tier: Tier


@dataclass(frozen=True, slots=True)
class BatchDecision:
    decodes: Sequence[Request] = ()
    prefills: Sequence[Prefill] = ()
    host_decodes: Sequence[Request] = ()


class CohortDecision(NamedTuple):
    """A cohort that this pass takes along: `flying`, parked somewhere, or a new one of `requests`."""

    flying: Cohort | None = None
    requests: Sequence[Request] = ()
    patience_us: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Cohorts that are not named stay where they are parked."""

    mode: Mode
    batches: tuple[BatchDecision, ...]
    preemptions: Sequence[Preemption] = ()
    moves: Sequence[tuple[Request, Tier]] = ()  # swapped requests that come back, migrations
    cohorts: Sequence[CohortDecision] = ()
    placement: Placement | None = None  # from this step on; None: as before
    found: Sequence[tuple[Request, int]] = ()  # who comes back to so many of its blocks, and is admitted with them


@dataclass(slots=True)
class View:
    """What a policy may look at. The queues are the core's own: read them, never write."""

    running: Sequence[Request]  # in order of admission, which is order of arrival
    waiting: Sequence[Request]  # in order of arrival
    free: dict[Tier, int]  # blocks
    page_tokens: dict[Tier, int]
    limits: Limits
    capabilities: Capabilities
    predict: Predictor | None  # None where nothing is modelled and nothing was profiled
    cohorts: Sequence[Cohort] = ()  # in flight, oldest first
    last_mode: Mode | None = None  # of the step before
    placement: Placement | None = None  # in force
    kept_kv: ReusingKv | None = None  # what preempted requests find again, where the policy wants it

    def propose(self) -> "Proposal":
        return Proposal(self)


class Policy(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def uses_host_kv(self) -> bool:
        """Whether any KV ever lives on the host; if not, the host's memory stays untouched."""

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        """Once: where weights live and operators run."""

    def decide(self, view: View) -> Decision:
        """Every step: who runs, where, with whom."""


@runtime_checkable
class PlacingPolicy(Policy, Protocol):
    """A policy for models that do not fit: asked before anything is sized, since what is left decides the KV."""

    @property
    def places_weights(self) -> bool:
        """Whether it does with the options it has."""

    def place(self, room: Room, predict: Predictor | None) -> Placement:
        """Instead of `partition`; PlacementError with the numbers where nothing fits."""


@runtime_checkable
class LearningPolicy(Policy, Protocol):
    """A policy that compares what it believed with what came of it. All it learns from is in the journal."""

    def observe(self, view: View, plan: StepPlan, result: StepResult) -> None: ...


@runtime_checkable
class SteadyPolicy(Policy, Protocol):
    """A policy with an obvious answer where there is nothing to weigh: then many steps may be taken at once.

    Whom it does not admit for want of blocks it does not admit later either, while those inside only take more.
    """

    def steady(self, running: Sequence[Request]) -> Mode | None:
        """All of them have one token to go, blocks for that are there, and nobody else may come in: the mode in which
        one batch decodes them all, if that is what it would decide, else None.
        """


@runtime_checkable
class ReusingPolicy(Policy, Protocol):
    """A policy whose preempted requests find again what is left of their KV (reuse.py), if it says so. Whom it lets in
    goes to the accelerator: on the host nothing is kept.
    """

    @property
    def keep_preempted_kv(self) -> bool: ...


def reuses_kv(policy: Policy) -> bool:
    return isinstance(policy, ReusingPolicy) and policy.keep_preempted_kv


@dataclass(frozen=True, slots=True)
class _Room:
    """How it is made: what becomes of whoever has to go."""

    preemption: PreemptionKind
    offloads: bool


@dataclass(slots=True)
class Proposal:
    """Scratch arithmetic over blocks and both budgets. The shared mechanics of continuous batching live here."""

    view: View
    decodes: list[Request] = field(default_factory=list)
    host_decodes: list[Request] = field(default_factory=list)
    prefills: list[Prefill] = field(default_factory=list)
    preemptions: list[Preemption] = field(default_factory=list)
    moves: list[tuple[Request, Tier]] = field(default_factory=list)
    found: list[tuple[Request, int]] = field(default_factory=list)
    free: dict[Tier, int] = field(init=False)
    tokens_left: int = field(init=False)
    kept: int = field(init=False)
    _gone: set[Request] = field(default_factory=set)  # preempted or offloaded by this very proposal

    def __post_init__(self) -> None:
        self.free = dict(self.view.free)
        self.tokens_left = self.view.limits.max_batch_tokens - sum([len(c.requests) for c in self.view.cohorts])
        self.kept = len(self.view.running)

    def continue_running(
        self, preemption: PreemptionKind = PreemptionKind.RECOMPUTE, *, offloads: bool = False
    ) -> None:
        """Running requests first: each decodes or takes its next chunk; when the blocks of a tier run out, its youngest
        makes room. `offloads`: from the accelerator it goes on to run on the host, where there is room.

        Who flies with a cohort is not asked.
        """
        standing: Sequence[Request] = self.view.running
        if self.view.cohorts:
            standing = [request for request in standing if not request.in_flight]
        room = _Room(preemption, offloads)
        # Most steps are this: everybody has one token to go, and the budget holds all of them.
        uncommon = [each for each in standing if each.known > each.capacity or each.known - each.computed != 1]
        if len(standing) <= self.tokens_left and all(each.pending == 1 for each in uncommon):
            self._all_decode(standing, uncommon, room)
        else:
            self._one_by_one(standing, room)

    def _all_decode(self, standing: Sequence[Request], full: Sequence[Request], room: _Room) -> None:
        """Only who is at the end of its last block needs a closer look."""
        left_out = [each for each in full if not self._make_room(each, 1, room)]
        if left_out or self._gone:
            out = self._gone.union(left_out)
            standing = [request for request in standing if request not in out]
        self.tokens_left -= len(standing)
        if not self.view.capabilities.host.blocks:
            self.decodes = list(standing)
            return
        accel = Tier.ACCEL
        self.decodes = [request for request in standing if request.tier is accel]
        self.host_decodes = [request for request in standing if request.tier is not accel]

    def _one_by_one(self, standing: Sequence[Request], room: _Room) -> None:
        for request in standing:
            if self.tokens_left <= 0:
                return
            if request in self._gone:
                continue
            tokens = min(request.pending, self.tokens_left)
            if request.computed + tokens > request.capacity and not self._make_room(request, tokens, room):
                continue  # it had to make room for its elders, or waits for somebody in flight
            if request.pending != 1:
                self.prefills.append(Prefill(request, tokens, request.tier))
            elif request.tier is Tier.ACCEL:
                self.decodes.append(request)
            else:
                self.host_decodes.append(request)
            self.tokens_left -= tokens

    def admit_waiting(self, tier: Tier, whole_prompt: bool = True, most: int | None = None) -> None:
        """Then waiting ones, first come first served; `whole_prompt` asks for room for all of it, not for one chunk.
        `most`: of the running ones, where a policy holds fewer than the budget allows.
        """
        self.admit(lambda _: (tier,), whole_prompt, most)

    def admit(
        self, tiers: Callable[[Request], Sequence[Tier]], whole_prompt: bool = True, most: int | None = None
    ) -> None:
        """The same with a choice: each goes to the first of its tiers that has room, or it and all after it wait. Once
        somebody had to take a later tier, so do those that follow.
        """
        nearest = Tier.ACCEL
        limit = self.view.limits.max_batch if most is None else min(most, self.view.limits.max_batch)
        coming_back = self._coming_back() if self.view.kept_kv is not None else None
        for request in self.view.waiting:
            if self.tokens_left <= 0 or self.kept >= limit:
                return
            found = coming_back.found(request) if coming_back is not None else []
            computed = request.computed + len(found) * self.view.page_tokens[Tier.ACCEL]
            tokens = min(request.known - computed, self.tokens_left)
            reserved = request.known if whole_prompt else computed + tokens
            choices = tiers(request)
            fit = (each for each in choices if each >= nearest and self.pages(reserved, each) <= self.free[each])
            tier = next(fit, None)
            if tier is None:
                return
            if tier is not choices[0]:
                nearest = tier
            pages = self.pages(computed + tokens, tier)
            self.free[tier] -= pages
            if request.blocks:  # swapped out: its KV comes back first
                self.moves.append((request, tier))
                self.free[request.tier] += len(request.blocks)
            if coming_back is not None:
                coming_back.let_in(found, pages)
                if found:
                    self.found.append((request, len(found)))
            self._take(request, request.known - computed, tokens, tier)

    def put_off(self) -> bool:
        """The last admission waits after all; False when nobody was admitted, or its KV comes from elsewhere."""
        if (
            not self.prefills
            or self.prefills[-1].request.phase is not Phase.WAITING
            or self.prefills[-1].request.blocks
        ):
            return False
        last = self.prefills.pop()
        self.free[last.tier] += self.pages(last.request.computed + last.tokens, last.tier)
        self.tokens_left += last.tokens
        self.kept -= 1
        return True

    def bring_back(self, share: float) -> None:
        """Running requests move from the host to the accelerator, oldest first, while that stays filled up to
        `share`.
        """
        spare = self.free[Tier.ACCEL] - round((1 - share) * self.view.capabilities.accel.blocks)
        while self.host_decodes:
            request = self.host_decodes[0]
            pages = self.pages(request.known, Tier.ACCEL)
            if pages > spare:
                return
            spare -= pages
            self.free[Tier.ACCEL] -= pages
            self.free[Tier.HOST] += len(request.blocks)
            self.moves.append((request, Tier.ACCEL))
            self.decodes.append(self.host_decodes.pop(0))

    def pages(self, tokens: int, tier: Tier) -> int:
        return -(-tokens // self.view.page_tokens[tier])

    def batch(self, host_decodes: Sequence[Request] | None = None) -> BatchDecision:
        """Everything in one batch; of the host's decodes those given."""
        return BatchDecision(self.decodes, self.prefills, self.host_decodes if host_decodes is None else host_decodes)

    def halves(self, first: Sequence[Request], second: Sequence[Request]) -> tuple[BatchDecision, ...]:
        """Host decodes beside the accelerator's own rows, and others in a batch of their own; those with anything in
        them."""
        halves = (self.batch(first), BatchDecision((), (), second))
        return tuple([half for half in halves if half.decodes or half.prefills or half.host_decodes])

    def decision(self, mode: Mode, *batches: BatchDecision, cohorts: Sequence[CohortDecision] = ()) -> Decision:
        return Decision(mode, batches or (self.batch(),), self.preemptions, self.moves, cohorts, found=self.found)

    def _coming_back(self) -> ComingBack | None:
        """Those who run take their blocks before anybody is let in."""
        assert self.view.kept_kv is not None
        accel = Tier.ACCEL
        return self.view.kept_kv.coming_back(self.view.free[accel] - self.free[accel])

    def _take(self, request: Request, pending: int, tokens: int, tier: Tier) -> None:
        if pending == 1 and tier is Tier.ACCEL:
            self.decodes.append(request)
        else:  # on the host a prompt of one token as well: nobody may leave an admission out afterwards
            self.prefills.append(Prefill(request, tokens, tier))
        self.tokens_left -= tokens
        self.kept += 1

    def _make_room(self, request: Request, tokens: int, room: _Room) -> bool:
        """Preempt from the young end until `request` can grow; False when it is gone, or nobody younger may go."""
        if request in self._gone:
            return False
        tier = request.tier
        missing = self.pages(request.computed + tokens, tier) - len(request.blocks)
        while missing > self.free[tier]:
            victim = self._youngest(tier)
            if victim is None:
                return False
            if not (room.offloads and tier is Tier.ACCEL and self._offload(victim)):
                self._preempt(victim, room.preemption)
            if victim is request:
                return False
        self.free[tier] -= missing
        return True

    def _youngest(self, tier: Tier) -> Request | None:
        for request in reversed(self.view.running):
            if request.tier is tier and not request.in_flight and request not in self._gone:
                return request
        return None

    def _offload(self, victim: Request) -> bool:
        """It stands still in this step and decodes on the host from the next one on."""
        pages = self.pages(victim.known, Tier.HOST)
        if victim.pending != 1 or pages > self.free[Tier.HOST]:
            return False
        self.free[Tier.HOST] -= pages
        self.free[Tier.ACCEL] += len(victim.blocks)
        self.moves.append((victim, Tier.HOST))
        self._gone.add(victim)
        return True

    def _preempt(self, victim: Request, preemption: PreemptionKind) -> None:
        kind = preemption
        if kind is PreemptionKind.SWAP:
            pages = self.pages(victim.computed, Tier.HOST)
            if victim.tier is Tier.HOST or victim.computed == 0 or pages > self.free[Tier.HOST]:
                kind = PreemptionKind.RECOMPUTE
            else:
                self.free[Tier.HOST] -= pages
        self.free[victim.tier] += len(victim.blocks)
        self.kept -= 1
        self._gone.add(victim)
        self.preemptions.append(Preemption(victim, kind))
