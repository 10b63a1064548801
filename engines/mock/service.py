"""Requests on their way through the mock engine: first come, first served over the slots, then the law.

Service is never interrupted, so the whole future of a request is known when it comes in. No clock here: who owns the
time asks when something happens next, and takes what has happened until now.
"""

from __future__ import annotations

import heapq
from array import array
from dataclasses import dataclass

from engines.mock.law import LatencyLaw


@dataclass(frozen=True, slots=True)
class Output:
    """What came out, in the order it did: requests whose service began, one id per token, requests that ended."""

    begun: tuple[int, ...]
    tokens: tuple[int, ...]
    finished: tuple[int, ...]


class _Service:
    __slots__ = ("given", "request_id", "times_s")

    def __init__(self, request_id: int, times_s: array[float]) -> None:
        self.request_id = request_id
        self.times_s = times_s
        self.given = -1  # tokens handed over; -1 until service has begun


class MockService:
    def __init__(self, law: LatencyLaw) -> None:
        self._law = law
        self._free_s = [0.0] * (law.slots or 0)  # a heap: when each slot is free again
        self._due: list[tuple[float, int, _Service]] = []  # a heap: the next event of every request
        self._came_in = 0

    def submit(self, request_id: int, prompt_tokens: int, output_tokens: int, now_s: float) -> None:
        begin_s = max(now_s, heapq.heappop(self._free_s)) if self._free_s else now_s
        times_s = self._law.token_times_s(request_id, prompt_tokens, output_tokens, begin_s)
        if self._law.slots is not None:
            heapq.heappush(self._free_s, times_s[-1])
        self._came_in += 1
        heapq.heappush(self._due, (begin_s, self._came_in, _Service(request_id, times_s)))

    @property
    def busy(self) -> bool:
        return bool(self._due)

    @property
    def next_s(self) -> float | None:
        """When something happens next; None when nothing will."""
        return self._due[0][0] if self._due else None

    def take(self, until_s: float) -> Output | None:
        """All that has happened until then and was not taken before; None when that is nothing."""
        due = self._due
        if not due or due[0][0] > until_s:
            return None
        begun: list[int] = []
        tokens: list[int] = []
        finished: list[int] = []
        while due and due[0][0] <= until_s:
            _, order, service = due[0]
            service.given += 1
            (tokens if service.given else begun).append(service.request_id)
            if service.given == len(service.times_s):
                finished.append(service.request_id)
                heapq.heappop(due)
            else:
                heapq.heapreplace(due, (service.times_s[service.given], order, service))
        return Output(tuple(begun), tuple(tokens), tuple(finished))
