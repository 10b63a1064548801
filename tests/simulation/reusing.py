"""gpu_only with what vLLM's prefix cache does for a request that was preempted: whichever of its blocks nobody has been
given since are found again, and only the rest is computed anew. Our engines have no such cache; this one is here to say
how much of a difference from vLLM it makes.

As vLLM has it: free blocks are handed out in the order in which they became free, a request's last block first.
"""

from __future__ import annotations

from engines.core.cost import CostTable
from engines.core.kv import KVManager
from engines.core.request import Request
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, StepPlan, Tier
from engines.gpu_only.policy import GpuOnly


class ReusingKv(KVManager):
    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__(capabilities)
        self.pool = self.pools[Tier.ACCEL]
        self.kept: dict[int, list[int]] = {}  # request id -> its full blocks when it was preempted
        self.reused_tokens = 0
        self._filled_by: dict[int, int] = {}  # free block -> whose tokens are in it

    def release(self, request: Request) -> None:
        full = request.blocks[: request.computed // self.pool.page_tokens]
        self.kept[request.request_id] = full
        self._filled_by.update(dict.fromkeys(full, request.request_id))
        self.pool.free[:0] = request.blocks  # the end is handed out next: here, all others before these
        request.blocks = []
        request.capacity = 0

    def grow(self, request: Request, tokens: int) -> list[int]:
        found: list[int] = []
        if request.computed and not request.blocks:
            found = self.kept[request.request_id][: request.computed // self.pool.page_tokens]
            for block in found:
                self.pool.free.remove(block)
            request.blocks.extend(found)
            self.reused_tokens += request.computed
        given = found + super().grow(request, tokens)
        for block in given:
            self._filled_by.pop(block, None)
        return given

    def found(self, request: Request, lost: set[int]) -> list[int]:
        """Its first blocks, as far as they are there without a gap; one token at least is computed."""
        blocks: list[int] = []
        for block in self.kept[request.request_id][: (request.known - 1) // self.pool.page_tokens]:
            if self._filled_by.get(block) != request.request_id or block in lost:
                break
            blocks.append(block)
        return blocks


class ReusingCore(EngineCore):
    def __init__(self, capabilities: Capabilities, limits: Limits, costs: CostTable) -> None:
        super().__init__(GpuOnly(), capabilities, limits, None)
        self.kv: ReusingKv = ReusingKv(capabilities)

    def schedule(self, now_s: float) -> StepPlan | None:
        self._find()
        plan = super().schedule(now_s)
        for request in self.waiting:
            request.computed = 0
        return plan

    def _find(self) -> None:
        """For those who come back, oldest first. Whoever runs takes blocks before them, from the head of the queue."""
        pool = self.kv.pool
        queue = pool.free[::-1]
        growing = sum(pool.blocks_for(request.known) - len(request.blocks) for request in self.running)
        lost = set(queue[:growing])
        for request in self.waiting:
            if request.request_id not in self.kv.kept:
                return
            found = self.kv.found(request, lost)
            request.computed = len(found) * pool.page_tokens
            lost.update(found)
            missing = pool.blocks_for(request.known) - len(found)
            lost.update([block for block in queue if block not in lost][:missing])
