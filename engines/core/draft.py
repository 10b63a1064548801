"""A plan being written: blocks that are given and moved, and rows, in the order in which they are decided.

What a policy decided is checked here row by row and move by move, and carried out on the requests' blocks. Not here:
queues and slots (scheduler.py), and which blocks there are (kv.py).
"""

from collections.abc import Sequence

from engines.core.errors import PolicyError
from engines.core.kv import KVManager
from engines.core.policy import BatchDecision, Prefill
from engines.core.request import Phase, Request
from engines.core.types import Batch, BlockChanges, Move, PrefillChunk, SlotStart, Tier


class Draft:
    """The columns of `BlockChanges`, the moves, and whose rows yield a token, in the order of the plan."""

    __slots__ = (
        "_kv",
        "admitted",
        "computing",
        "ends",
        "grown_blocks",
        "grown_slots",
        "moves",
        "preempted",
        "sampling",
        "starts",
    )

    def __init__(self, kv: KVManager, ends: list[int]) -> None:
        self._kv = kv
        self.ends = ends
        self.starts: list[SlotStart] = []
        self.grown_slots: list[int] = []
        self.grown_blocks: list[int] = []
        self.moves: list[Move] = []
        self.preempted: list[int] = []
        self.admitted: list[int] = []
        self.sampling: list[Request] = []
        self.computing: list[tuple[Request, int]] = []  # prefills that come to no end yet

    def begin(self, request: Request) -> None:
        """Its slot, with the blocks that it holds already."""
        self.starts.append(SlotStart(request.slot, request.request_id, request.tier))
        self.grown_slots.extend([request.slot] * len(request.blocks))
        self.grown_blocks.extend(request.blocks)

    def changes(self) -> BlockChanges:
        return BlockChanges(tuple(self.ends), tuple(self.starts), tuple(self.grown_slots), tuple(self.grown_blocks))

    def find(self, found: Sequence[tuple[Request, int]]) -> int:
        """Before anybody is given a block: what was found is what those who were counted before leave. In tokens."""
        for request, blocks in found:
            if request.phase is not Phase.WAITING or not self._kv.reclaim(request, blocks):
                raise PolicyError(f"{request!r} does not find {blocks} of its blocks again")
        return sum([request.computed for request, _ in found])

    def move(self, request: Request, tier: Tier) -> None:
        """A running request keeps its slot, whose table starts afresh."""
        self.relocate(request, tier)
        if request.phase is Phase.RUNNING:
            self.ends.append(request.slot)
            self.begin(request)

    def relocate(self, request: Request, tier: Tier) -> None:
        source_tier = request.tier
        if not self._kv.can_move(request, tier):
            raise PolicyError(f"{request!r} cannot move to {tier.name}: no room there, or a cohort still reads it")
        source, target = self._kv.move(request, tier)
        self.moves.append(Move(request.request_id, source_tier, source, tier, target, request.computed))

    def batch(self, decision: BatchDecision) -> Batch:
        decodes, host = decision.decodes, decision.host_decodes
        on_host = Tier.HOST  # once: a member of an Enum takes a call to look up
        for request in host:
            if request.tier is not on_host or request.in_flight:
                raise PolicyError(f"{request!r} cannot decode on the host: it is elsewhere, or flies with a cohort")
        for rows in (decodes, host):
            for request in rows:
                if request.computed == request.capacity:
                    self.grow(request, request.known)
        self.sampling.extend(decodes)
        self.sampling.extend(host)
        chunks = tuple([self._chunk(prefill) for prefill in decision.prefills])
        return Batch(
            tuple([r.slot for r in decodes]),
            tuple([r.computed for r in decodes]),
            chunks,
            tuple([r.slot for r in host]),
            tuple([r.computed for r in host]),
        )

    def _chunk(self, prefill: Prefill) -> PrefillChunk:
        request, tokens = prefill.request, prefill.tokens
        if request.phase is not Phase.RUNNING or not 0 < tokens <= request.pending:
            raise PolicyError(f"{request!r} cannot prefill {tokens} tokens")
        end = request.computed + tokens
        self.grow(request, end)
        samples = end == request.known
        if samples:
            self.sampling.append(request)
        else:
            self.computing.append((request, tokens))
        return PrefillChunk(request.slot, request.request_id, request.computed, tokens, samples, request.tier)

    def grow(self, request: Request, tokens: int) -> None:
        if not self._kv.can_grow(request, tokens):
            raise PolicyError(f"{request!r} needs room for {tokens} tokens that {request.tier.name} does not have")
        given = self._kv.grow(request, tokens)
        self.grown_slots.extend([request.slot] * len(given))
        self.grown_blocks.extend(given)
