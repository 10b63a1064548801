"""Which requests are due: open loop by schedule, later turns after think time, closed loop by user.

The load never waits for the client: a request that is sent late still counts from the moment it should have been sent.
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
        self._unclaimed = deque(request for request in workload.requests if request.turn == 0)
        self.total = len(workload.requests)
        for request in workload.requests:
            if request.turn > 0:
                self._later_turns.setdefault(request.session, deque()).append(request)
        if self._closed:
            for _ in range(min(workload.closed_loop_users, len(self._unclaimed))):
                self._schedule(self._unclaimed.popleft(), 0.0)
        else:
            while self._unclaimed:
                request = self._unclaimed.popleft()
                self._schedule(request, request.arrival_s)

    def due(self, now_s: float) -> list[tuple[Request, float]]:
        """Requests to send now, each with the moment it should have been sent."""
        ready = []
        while self._scheduled and self._scheduled[0][0] <= now_s:
            arrival_s, _, request = heapq.heappop(self._scheduled)
            ready.append((request, arrival_s))
            self._waits_for[request.request_id] = request.session
        return ready

    @property
    def next_s(self) -> float | None:
        """When the next request is due; None when nothing is scheduled (answers in flight may still cause some)."""
        return self._scheduled[0][0] if self._scheduled else None

    @property
    def exhausted(self) -> bool:
        return not self._scheduled and not self._waits_for

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
            elif self._closed and self._unclaimed:
                request = self._unclaimed.popleft()
                self._schedule(request, at_s + request.think_s)

    def _schedule(self, request: Request, arrival_s: float) -> None:
        heapq.heappush(self._scheduled, (arrival_s, request.request_id, request))
