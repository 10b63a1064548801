"""Which requests are due: open loop by schedule, later turns after think time, closed loop by user.

The load never waits for the client: a request that is sent late still counts from the moment it should have been sent.
First turns are read from the workload as they come up, so that a long one is never a heap of objects.
"""

import heapq
from collections import deque
from collections.abc import Sequence

from workloads import Request, Workload


class ArrivalSource:
    def __init__(self, workload: Workload) -> None:
        self._later_turns: dict[int, deque[Request]] = {}
        self._waits_for: dict[int, int] = {}  # request in flight -> session or user that goes on after it
        self._scheduled: list[tuple[float, int, Request]] = []
        self._closed = workload.closed_loop_users > 0
        self._first_turns = (request for request in workload.requests if request.turn == 0)
        self._unclaimed = next(self._first_turns, None)
        self.total = len(workload.requests)
        for request in workload.requests:
            if request.turn > 0:
                self._later_turns.setdefault(request.session, deque()).append(request)
        for _ in range(workload.closed_loop_users):
            if (first := self._claim()) is not None:
                self._schedule(first, 0.0)

    def due(self, now_s: float) -> list[tuple[Request, float]]:
        """Requests to send now, each with the moment it should have been sent."""
        while not self._closed and self._unclaimed is not None and self._unclaimed.arrival_s <= now_s:
            self._schedule(self._unclaimed, self._unclaimed.arrival_s)
            self._claim()
        ready = []
        while self._scheduled and self._scheduled[0][0] <= now_s:
            arrival_s, _, request = heapq.heappop(self._scheduled)
            ready.append((request, arrival_s))
            self._waits_for[request.request_id] = request.session
        return ready

    @property
    def next_s(self) -> float | None:
        """When the next request is due; None when nothing is scheduled (answers in flight may still cause some)."""
        first_s = self._scheduled[0][0] if self._scheduled else None
        if self._closed or self._unclaimed is None:
            return first_s
        return self._unclaimed.arrival_s if first_s is None else min(first_s, self._unclaimed.arrival_s)

    @property
    def exhausted(self) -> bool:
        return self.next_s is None and not self._waits_for

    def ended(self, request_ids: Sequence[int], at_s: float) -> None:
        """Requests that finished, were refused or failed: whoever waited for them goes on."""
        for request_id in request_ids:
            session = self._waits_for.pop(request_id, None)
            if session is None:
                continue
            later = self._later_turns.get(session) if session >= 0 else None
            if later:
                turn = later.popleft()
                self._schedule(turn, at_s + turn.think_s)
            elif self._closed and (request := self._claim()) is not None:
                self._schedule(request, at_s + request.think_s)

    def _claim(self) -> Request | None:
        """The first one that nobody has taken."""
        claimed, self._unclaimed = self._unclaimed, next(self._first_turns, None)
        return claimed

    def _schedule(self, request: Request, arrival_s: float) -> None:
        heapq.heappush(self._scheduled, (arrival_s, request.request_id, request))
