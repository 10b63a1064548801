"""KV of preempted requests that is still there: what vLLM's prefix cache does for a request that comes back.

The blocks of whoever was preempted are free, and keep their content until they are given to somebody. The longest free
is handed out next, a request's last block first, so that what is left of a request is its beginning. Only full blocks
count whose tokens were computed, each at its own place of the same request: nothing is looked up by content, and nobody
finds what somebody else computed.

Not here: when a request is let in again (policy.py), and KV that was swapped to the host, which is not lost.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from engines.core.errors import IntegrityError
from engines.core.kv import KVManager
from engines.core.request import Request
from engines.core.types import Capabilities, Tier

Place = tuple[int, int]  # request id, and which of its blocks


class LongestFreeFirst:
    """Free blocks in the order in which they became free, and whose tokens are in them."""

    __slots__ = ("_places",)

    def __init__(self, blocks: Iterable[int]) -> None:
        self._places: OrderedDict[int, Place | None] = OrderedDict.fromkeys(blocks)

    def take(self, count: int) -> list[int]:
        return [self._places.popitem(last=False)[0] for _ in range(count)]

    def put(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self._places[block] = None

    def mark(self, block: int, place: Place) -> None:
        """What is in this free block, from now on until it is taken."""
        if block not in self._places:
            raise IntegrityError(f"block {block} is not free: what is in it is its holder's")
        self._places[block] = place

    def holds(self, block: int, place: Place) -> bool:
        return self._places.get(block) == place

    def pull(self, block: int) -> None:
        """Take this one, out of turn."""
        del self._places[block]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)


class ReusingKv(KVManager):
    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__(capabilities)
        self._accel = self.pools[Tier.ACCEL]
        self._free = LongestFreeFirst(range(self._accel.total))
        self._accel.free = self._free
        self._kept: dict[int, list[int]] = {}  # request id -> where its tokens were last, full block by full block

    def release(self, request: Request) -> None:
        super().release(request)
        self._kept.pop(request.request_id, None)

    def evict(self, request: Request) -> None:
        full = request.blocks[: request.computed // self._accel.page_tokens] if request.tier is Tier.ACCEL else []
        before = self._kept.get(request.request_id, [])
        super().evict(request)
        for index, block in enumerate(full):
            self._free.mark(block, (request.request_id, index))
        # What it has not come to again since it was preempted before may still be there as well.
        self._kept[request.request_id] = full + before[len(full) :]

    def still_there(self, request: Request, but: set[int]) -> list[int]:
        """Its first blocks up to the first one that is gone, or is among `but`; one token at least is computed anew."""
        if request.blocks:
            return []
        found: list[int] = []
        kept = self._kept.get(request.request_id, [])
        for index, block in enumerate(kept[: (request.known - 1) // self._accel.page_tokens]):
            if block in but or not self._free.holds(block, (request.request_id, index)):
                break
            found.append(block)
        return found

    def reclaim(self, request: Request, blocks: int) -> bool:
        found = self.still_there(request, set())[:blocks]
        if len(found) < blocks:
            return False
        for block in found:
            self._free.pull(block)
        request.blocks = found
        request.capacity = request.computed = blocks * self._accel.page_tokens
        return True

    def coming_back(self, taken: int) -> "ComingBack | None":
        """For a decision in which so many blocks have been promised already; None when nobody has anything kept."""
        return ComingBack(self, self._free, taken) if self._kept else None

    def check_integrity(self, holders: list[Request]) -> None:
        super().check_integrity(holders)
        lost = self._kept.keys() - {request.request_id for request in holders}
        if lost:
            raise IntegrityError(f"blocks are kept for requests {sorted(lost)}, who are gone")


class ComingBack:
    """Scratch of one decision: what each request would find, after all that those before it find and take.

    The order in which blocks are handed out is known, so this is what will be there, not a guess.
    """

    __slots__ = ("_claimed", "_kv", "_lost", "_queue")

    def __init__(self, kv: ReusingKv, free: LongestFreeFirst, taken: int) -> None:
        self._kv = kv
        self._queue = iter(free)
        self._claimed: set[int] = set()
        self._lost: set[int] = set()
        self._hand_out(taken)

    def found(self, request: Request) -> list[int]:
        return self._kv.still_there(request, self._lost)

    def let_in(self, found: list[int], blocks: int) -> None:
        """It holds `blocks` then: those found, and the rest from the queue."""
        self._claimed.update(found)
        self._hand_out(blocks - len(found))

    def _hand_out(self, count: int) -> None:
        while count > 0 and (block := next(self._queue, None)) is not None:
            if block not in self._claimed:
                self._lost.add(block)
                count -= 1
