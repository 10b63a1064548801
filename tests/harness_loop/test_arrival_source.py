"""Whatever the workload and however long answers take: each request is sent once, at the moment it should be."""

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arrival_source import ArrivalSource
from tests.harness_loop.scripted import closed_loop, open_loop, workload
from workloads import Request, Workload

times = st.floats(0, 20, allow_nan=False)


@dataclass
class Sent:
    """Who was sent when (`arrival_s` is when it should have been), and when its answer was complete."""

    order: list[int] = field(default_factory=list)
    arrival_s: dict[int, float] = field(default_factory=dict)
    dispatch_s: dict[int, float] = field(default_factory=dict)
    end_s: dict[int, float] = field(default_factory=dict)
    most_in_flight: int = 0


def send_all(load: Workload, service_s: Callable[[int], float], lag_s: float = 0.0) -> Sent:
    """An engine of unlimited width; the client looks `lag_s` too late at the clock."""
    source, sent, in_flight, now_s = ArrivalSource(load), Sent(), list[tuple[float, int]](), 0.0
    assert source.total == len(load.requests)
    while not source.exhausted:
        for request, arrival_s in source.due(now_s):
            sent.order.append(request.request_id)
            sent.arrival_s[request.request_id] = arrival_s
            sent.dispatch_s[request.request_id] = now_s
            heapq.heappush(in_flight, (now_s + service_s(request.request_id), request.request_id))
        sent.most_in_flight = max(sent.most_in_flight, len(in_flight))
        next_s = [moment for moment in (source.next_s, in_flight[0][0] if in_flight else None) if moment is not None]
        assert next_s, "nothing is due, nothing is in flight, and yet it is not exhausted"
        now_s = max(now_s, min(next_s)) + lag_s
        while in_flight and in_flight[0][0] <= now_s:
            end_s, request_id = heapq.heappop(in_flight)
            sent.end_s[request_id] = end_s
            source.ended((request_id,), end_s)
    assert source.due(1e9) == []
    assert source.next_s is None
    return sent


@st.composite
def workloads(draw: st.DrawFn, users: st.SearchStrategy[int]) -> Workload:
    """Single requests and conversations of up to four turns, numbered by arrival as workloads are."""
    drawn: list[tuple[float, int, int, float]] = []
    for session in range(draw(st.integers(1, 12))):
        start_s = draw(times)
        for turn in range(draw(st.integers(1, 4))):
            drawn.append((start_s, session, turn, draw(times) if turn else 0.0))
    loop = draw(users)
    turns = max(turn for *_, turn, _ in drawn)
    ordered = sorted(drawn, key=lambda each: (0.0 if loop else each[0], each[2], each[1]))
    return workload(
        *(
            Request(number, 0.0 if loop else at_s, 1, 1, session if turns else -1, turn, think_s)
            for number, (at_s, session, turn, think_s) in enumerate(ordered)
        ),
        users=loop,
    )


@settings(deadline=None, max_examples=150)
@given(load=workloads(st.just(0)), service=st.lists(times, min_size=48, max_size=48), lag_s=st.sampled_from([0.0, 0.3]))
def test_an_open_loop_keeps_its_schedule(load: Workload, service: list[float], lag_s: float) -> None:
    sent = send_all(load, service.__getitem__, lag_s)
    assert sorted(sent.order) == [request.request_id for request in load.requests], "each of them once"
    before = dict[int, float]()
    for request in sorted(load.requests, key=lambda request: request.turn):
        due_s = before[request.session] + request.think_s if request.turn else request.arrival_s
        assert sent.arrival_s[request.request_id] == due_s
        assert due_s <= sent.dispatch_s[request.request_id]
        before[request.session] = sent.end_s[request.request_id]


@settings(deadline=None, max_examples=150)
@given(load=workloads(st.integers(1, 6)), service=st.lists(times, min_size=48, max_size=48))
def test_a_closed_loop_never_exceeds_its_users(load: Workload, service: list[float]) -> None:
    sent = send_all(load, service.__getitem__)
    assert sorted(sent.order) == [request.request_id for request in load.requests]
    assert sent.most_in_flight <= load.closed_loop_users
    turns = defaultdict[int, list[int]](list)
    for request_id in sent.order:
        request = load.requests[request_id]
        if request.session >= 0:
            turns[request.session].append(request.turn)
    assert all(order == sorted(order) for order in turns.values()), "a conversation goes on, it does not jump"


@settings(deadline=None, max_examples=100)
@given(
    count=st.integers(1, 40),
    users=st.integers(1, 10),
    think_s=st.sampled_from([0.0, 1.5]),
    service=st.lists(times, min_size=40, max_size=40),
)
def test_every_user_of_a_closed_loop_is_kept_busy(count: int, users: int, think_s: float, service: list[float]) -> None:
    """As a queue with so many servers: requests in order, each taken by the user who is free first."""
    sent = send_all(closed_loop(count, users, think_s=think_s), service.__getitem__)
    assert sent.order == list(range(count))
    free_s = [0.0] * min(users, count)
    for request_id in range(count):
        at_s = heapq.heappop(free_s)
        assert sent.arrival_s[request_id] == pytest.approx(at_s)
        heapq.heappush(free_s, at_s + service[request_id] + think_s)


def test_what_is_due_comes_in_order_and_once() -> None:
    source = ArrivalSource(open_loop(0.0, 1.0, 1.0, 2.0))
    assert source.next_s == 0.0
    assert [(request.request_id, at_s) for request, at_s in source.due(1.5)] == [(0, 0.0), (1, 1.0), (2, 1.0)]
    assert source.due(1.5) == []
    assert source.next_s == 2.0
    assert [(request.request_id, at_s) for request, at_s in source.due(100.0)] == [(3, 2.0)]
    assert source.next_s is None
    assert not source.exhausted, "four are in flight"
    source.ended((0, 1, 2), 3.0)
    assert not source.exhausted
    source.ended((3,), 3.0)
    assert source.exhausted


def test_ends_that_nobody_waits_for_change_nothing() -> None:
    source = ArrivalSource(closed_loop(3, 1))
    source.due(0.0)
    source.ended((0,), 1.0)
    source.ended((0, 77), 2.0)
    assert source.next_s == 1.0
    assert len(source.due(9.0)) == 1
