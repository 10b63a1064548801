"""An engine that stalls is not spared: every request due in the stall shows it, whether or not it could be sent.

Latency counts from the moment a request should have been sent. A client that waited for the engine before sending the
next one would see the stall once.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engines.core.adapter import Delivery, EngineAdapter, Submission
from engines.core.clock import Clock, MonotonicClock, VirtualClock
from engines.core.types import Refusal
from engines.mock.adapter import MockAdapter
from engines.mock.law import LatencyLaw
from harness.arrival_source import ArrivalSource
from harness.driver import serve
from harness.recorder import RequestRecorder
from tests.mock.worlds import Row, served, workload
from workloads import Workload

TTFT_S = 0.02


class Blocking:
    """An engine in the client's own thread: while it stalls nothing can be submitted either."""

    def __init__(self, inner: EngineAdapter, clock: Clock, stall_at_s: float, stall_s: float) -> None:
        self._inner = inner
        self._clock = clock
        self._stall_at_s, self._end_s = stall_at_s, stall_at_s + stall_s

    def start(self) -> dict[str, object]:
        return self._inner.start()

    def submit(self, submission: Submission) -> Refusal | None:
        return self._inner.submit(submission)

    def poll(self, now_s: float) -> Delivery | None:
        if self._stall_at_s <= now_s < self._end_s:
            self._clock.wait_until(self._end_s)
        return self._inner.poll(now_s)

    @property
    def busy(self) -> bool:
        return self._inner.busy

    def close(self) -> None:
        self._inner.close()


def steady(requests: int, gap_s: float) -> Workload:
    return workload(*[(index * gap_s, 1, 2) for index in range(requests)])


def ttfts_s(rows: Sequence[Row]) -> list[float]:
    return [row["first_token_s"] - row["arrival_s"] for row in rows]


def test_two_seconds_of_silence_are_seen_by_every_request_due_in_them() -> None:
    rows = served(LatencyLaw(TTFT_S, tpot_s=0.005, stall_at_s=1.0, stall_s=2.0), steady(500, 0.01))
    due_s = [row["arrival_s"] + TTFT_S for row in rows]
    stalled = [index for index, moment_s in enumerate(due_s) if 1.0 <= moment_s < 3.0]
    assert len(stalled) == 200
    for index, found_s in enumerate(ttfts_s(rows)):
        expected_s = 3.0 - rows[index]["arrival_s"] if index in stalled else TTFT_S
        assert found_s == pytest.approx(expected_s, abs=1e-9)
    assert max(ttfts_s(rows)) == pytest.approx(2.0 + TTFT_S, abs=0.01)
    assert sum(row["dispatch_s"] - row["arrival_s"] for row in rows) == 0  # the client was never held up


def test_an_engine_that_holds_the_client_is_charged_from_the_schedule() -> None:
    clock = VirtualClock()
    work = steady(500, 0.01)
    arrivals, rows = ArrivalSource(work), list[Row]()
    adapter = Blocking(MockAdapter(LatencyLaw(TTFT_S), clock, lambda: arrivals.next_s), clock, 1.0, 2.0)
    serve(adapter, arrivals, clock, RequestRecorder(rows.append, 0), {})
    rows.sort(key=lambda row: int(row["request_id"]))
    held = [row for row in rows if 1.0 < row["arrival_s"] < 3.0]
    assert len(held) > 190
    for row in held:
        assert row["dispatch_s"] == pytest.approx(3.0)
        assert row["first_token_s"] - row["arrival_s"] == pytest.approx(3.0 + TTFT_S - row["arrival_s"])
    assert sum(ttft_s > 0.5 for ttft_s in ttfts_s(rows)) > 140  # not one


def test_on_the_wall_clock_too() -> None:
    clock = MonotonicClock()
    law = LatencyLaw(TTFT_S, tpot_s=0.005, stall_at_s=0.2, stall_s=0.3)
    rows = served(law, steady(70, 0.01), clock)
    stalled = [row for row in rows if 0.2 <= row["arrival_s"] + TTFT_S < 0.5]
    assert len(stalled) >= 29
    assert all(row["first_token_s"] >= 0.5 for row in stalled)
    assert max(ttfts_s(stalled)) >= 0.3
