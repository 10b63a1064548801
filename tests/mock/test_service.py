"""Slots and the queue before them: who waits how long is known, because service is."""

from __future__ import annotations

import pytest

from engines.core.adapter import Submission
from engines.core.clock import VirtualClock
from engines.mock.adapter import MockAdapter
from engines.mock.law import LatencyLaw
from tests.mock.worlds import served, workload

ONE_SECOND = LatencyLaw(ttft_s=0.4, tpot_s=0.2, slots=2)  # four tokens take a second


def test_two_slots_serve_two_at_a_time_first_come_first_served() -> None:
    rows = served(ONE_SECOND, workload(*[(0.0, 1, 4)] * 5))
    assert [row["first_scheduled_s"] for row in rows] == pytest.approx([0, 0, 1, 1, 2])
    assert [row["first_token_s"] for row in rows] == pytest.approx([0.4, 0.4, 1.4, 1.4, 2.4])


def test_a_free_slot_is_taken_by_who_waited_longest() -> None:
    rows = served(ONE_SECOND, workload((0.0, 1, 4), (0.0, 1, 9), (0.1, 1, 4), (0.2, 1, 4)))
    assert [row["first_scheduled_s"] for row in rows] == pytest.approx([0, 0, 1, 2])


def test_an_idle_engine_lets_nobody_wait() -> None:
    rows = served(ONE_SECOND, workload((0.0, 1, 4), (5.0, 1, 4), (9.0, 1, 4)))
    assert [row["first_scheduled_s"] for row in rows] == [0.0, 5.0, 9.0]


def test_throughput_is_the_capacity_under_any_higher_load() -> None:
    rows = served(ONE_SECOND, workload(*[(index / 10, 1, 4) for index in range(200)]))
    assert max(row["last_token_s"] for row in rows) == pytest.approx(100.1)  # the second slot was idle until 0.1


def test_a_late_poll_hands_over_all_that_was_due_and_says_when_it_did() -> None:
    clock = VirtualClock()
    adapter = MockAdapter(ONE_SECOND, clock)  # on a clock that it does not move
    for request_id in (0, 1, 2):
        assert adapter.submit(Submission(request_id, 1, (), 2)) is None
    begun = adapter.poll(0.0)
    assert begun is not None
    assert (begun.admitted, begun.request_ids, begun.finished) == ((0, 1), (), ())
    assert adapter.poll(0.0) is None
    clock.wait_until(0.7)
    late = adapter.poll(0.7)
    assert late is not None
    assert (late.time_s, late.request_ids, late.finished, late.admitted) == (0.7, (0, 1, 0, 1), (0, 1), (2,))
    assert len(late.token_ids) == 4
    clock.wait_until(9.0)
    assert adapter.busy
    last = adapter.poll(9.0)
    assert last is not None
    assert last.finished == (2,)
    assert not adapter.busy
    assert adapter.poll(9.0) is None
