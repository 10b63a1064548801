"""The seam above the plan: what a policy sees (`View`), says (`Decision`), and the scratch ledger between (`Proposal`).

A policy holds no request state. It fills a proposal, may price and trim it, and hands over the decision; nothing is
allocated until the core has checked the decision and commits it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engines.core.cost import Predictor
from engines.core.request import Request
from engines.core.types import Capabilities, Limits, Mode, Placement, PreemptionKind, Tier


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


@dataclass(frozen=True, slots=True)
class Decision:
    mode: Mode
    batches: tuple[BatchDecision, ...]
    preemptions: Sequence[Preemption] = ()
    moves: Sequence[tuple[Request, Tier]] = ()  # swapped requests that come back, migrations


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


@dataclass(slots=True)
class Proposal:
    """Scratch arithmetic over blocks and both budgets. The shared mechanics of continuous batching live here."""

    view: View
    decodes: list[Request] = field(default_factory=list)
    prefills: list[Prefill] = field(default_factory=list)
    preemptions: list[Preemption] = field(default_factory=list)
    moves: list[tuple[Request, Tier]] = field(default_factory=list)
    free: dict[Tier, int] = field(init=False)
    tokens_left: int = field(init=False)
    kept: int = field(init=False)

    def __post_init__(self) -> None:
        self.free = dict(self.view.free)
        self.tokens_left = self.view.limits.max_batch_tokens
        self.kept = len(self.view.running)

    def continue_running(self, preemption: PreemptionKind = PreemptionKind.RECOMPUTE) -> None:
        """Running requests first: each decodes or takes its next chunk; when blocks run out the youngest makes room."""
        running = self.view.running
        index = 0
        while index < self.kept and self.tokens_left > 0:
            request = running[index]
            pending = request.known - request.computed
            tokens = pending if pending <= self.tokens_left else self.tokens_left
            if request.computed + tokens > request.capacity and not self._make_room(request, index, tokens, preemption):
                break  # the request itself was the youngest and made room for its elders
            if pending == 1:
                self.decodes.append(request)
            else:
                self.prefills.append(Prefill(request, tokens, request.tier))
            self.tokens_left -= tokens
            index += 1

    def admit_waiting(self, tier: Tier, whole_prompt: bool = True) -> None:
        """Then waiting ones, first come first served; `whole_prompt` asks for room for all of it, not for one chunk."""
        page_tokens = self.view.page_tokens[tier]
        for request in self.view.waiting:
            if self.tokens_left <= 0 or self.kept >= self.view.limits.max_batch:
                return
            tokens = min(request.known - request.computed, self.tokens_left)
            reserved = request.known if whole_prompt else request.computed + tokens
            if -(-reserved // page_tokens) > self.free[tier]:
                return
            self.free[tier] -= -(-(request.computed + tokens) // page_tokens)
            if request.blocks:  # swapped out: its KV comes back first
                self.moves.append((request, tier))
                self.free[request.tier] += len(request.blocks)
            self._take(request, tokens, tier)

    def decision(self, mode: Mode) -> Decision:
        return Decision(mode, (BatchDecision(self.decodes, self.prefills),), self.preemptions, self.moves)

    def _take(self, request: Request, tokens: int, tier: Tier) -> None:
        if request.known - request.computed == 1:
            self.decodes.append(request)
        else:
            self.prefills.append(Prefill(request, tokens, tier))
        self.tokens_left -= tokens
        self.kept += 1

    def _make_room(self, request: Request, index: int, tokens: int, preemption: PreemptionKind) -> bool:
        """Preempt from the young end until `request` can grow; False when it had to go itself."""
        tier = request.tier
        page_tokens = self.view.page_tokens[tier]
        missing = -(-(request.computed + tokens) // page_tokens) - len(request.blocks)
        while missing > self.free[tier]:
            self.kept -= 1
            self._preempt(self.view.running[self.kept], preemption)
            if self.kept == index:
                return False
        self.free[tier] -= missing
        return True

    def _preempt(self, victim: Request, preemption: PreemptionKind) -> None:
        kind = preemption
        if kind is PreemptionKind.SWAP:
            pages = -(-victim.computed // self.view.page_tokens[Tier.HOST])
            if victim.computed == 0 or pages > self.free[Tier.HOST]:
                kind = PreemptionKind.RECOMPUTE
            else:
                self.free[Tier.HOST] -= pages
        self.free[victim.tier] += len(victim.blocks)
        self.preemptions.append(Preemption(victim, kind))
