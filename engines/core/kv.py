"""Paged KV on two tiers: which block belongs to whom. `can_x` / `x` pairs never half-allocate.

Not here: the bytes (backends/buffers.py), the decision who gets them (policy.py), and what is still in blocks that are
free (reuse.py).
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from engines.core.errors import IntegrityError
from engines.core.request import Request
from engines.core.types import Capabilities, Tier, TierCapacity


class FreeBlocks(Protocol):
    """Those of a pool that nobody holds, and in which order they are handed out."""

    def take(self, count: int) -> list[int]: ...

    def put(self, blocks: Sequence[int]) -> None:
        """Take back what one request held, in its order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class LastFreedFirst(list[int]):
    """The hottest pages stay in the caches."""

    def take(self, count: int) -> list[int]:
        return [self.pop() for _ in range(count)]

    def put(self, blocks: Sequence[int]) -> None:
        self.extend(reversed(blocks))


class BlockPool:
    """The blocks of one tier."""

    def __init__(self, capacity: TierCapacity) -> None:
        self.page_tokens = capacity.page_tokens
        self.total = capacity.blocks
        self.free: FreeBlocks = LastFreedFirst(range(capacity.blocks - 1, -1, -1))
        self.draining: dict[int, list[int]] = {}  # request id -> blocks that a cohort in flight still reads

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    @property
    def draining_blocks(self) -> int:
        return sum(map(len, self.draining.values()))

    @property
    def used(self) -> int:
        return self.total - len(self.free) - self.draining_blocks


class KVManager:
    def __init__(self, capabilities: Capabilities) -> None:
        self.pools = {tier: BlockPool(capabilities.tier(tier)) for tier in (Tier.ACCEL, Tier.HOST)}

    def can_grow(self, request: Request, tokens: int) -> bool:
        pool = self.pools[request.tier]
        return pool.blocks_for(tokens) - len(request.blocks) <= len(pool.free)

    def grow(self, request: Request, tokens: int) -> list[int]:
        """Give the request room for `tokens` tokens; returns the blocks it was given."""
        pool = self.pools[request.tier]
        missing = pool.blocks_for(tokens) - len(request.blocks)
        if missing <= 0:
            return []
        if missing > len(pool.free):
            raise IntegrityError(
                f"{request!r} wants {missing} blocks of {request.tier.name}, {len(pool.free)} are free"
            )
        given = pool.free.take(missing)
        request.blocks.extend(given)
        request.capacity = len(request.blocks) * pool.page_tokens
        return given

    def release(self, request: Request) -> None:
        """Take the request's blocks back; pages that a cohort in flight still reads are DRAINING until `settle`."""
        pool = self.pools[request.tier]
        if request.in_flight:
            pool.draining.setdefault(request.request_id, []).extend(request.blocks)
        else:
            pool.free.put(request.blocks)
        request.blocks = []
        request.capacity = 0

    def evict(self, request: Request) -> None:
        """Release whoever was preempted and is to compute its tokens again."""
        self.release(request)
        request.computed = 0
        request.tier = Tier.ACCEL

    def reclaim(self, request: Request, blocks: int) -> bool:
        """Give a preempted request so many of its first blocks back, as they are; False where they are not there."""
        return False

    def settle(self, request_id: int) -> None:
        """Nothing in flight reads the pages of this request any more."""
        for pool in self.pools.values():
            pool.free.put(pool.draining.pop(request_id, []))

    def can_move(self, request: Request, target: Tier) -> bool:
        pool = self.pools[target]
        return not request.in_flight and pool.blocks_for(request.computed) <= len(pool.free)

    def move(self, request: Request, target: Tier) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Re-home the computed tokens; returns (source blocks, target blocks).

        The source blocks are free at once: every plan copies its moves before anything in it writes (pipeline.py).
        """
        if not self.can_move(request, target):
            raise IntegrityError(f"{request!r} cannot move to {target.name}")
        page_tokens = self.pools[request.tier].page_tokens
        source = tuple(request.blocks[: -(-request.computed // page_tokens)])
        self.release(request)
        request.tier = target
        return source, tuple(self.grow(request, request.computed))

    def check_integrity(self, holders: list[Request]) -> None:
        """Every block is free, draining or held exactly once, and tables are neither short nor padded."""
        for tier, pool in self.pools.items():
            seen = list(pool.free)
            for blocks in pool.draining.values():
                seen.extend(blocks)
            for request in holders:
                if request.tier is tier:
                    seen.extend(request.blocks)
            if sorted(seen) != list(range(pool.total)):
                raise IntegrityError(f"{tier.name}: blocks lost or held twice: {len(seen)} seen of {pool.total}")
        for request in holders:
            page_tokens = self.pools[request.tier].page_tokens
            if request.capacity != len(request.blocks) * page_tokens or request.capacity < request.computed:
                raise IntegrityError(f"{request!r} holds room for {request.capacity} tokens")
