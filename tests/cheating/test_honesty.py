"""Which time stamps and answers the driver accepts from an engine, and what it says of the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from engines.core.adapter import Delivery, Submission
from engines.core.clock import Clock, MonotonicClock, VirtualClock
from engines.core.types import Refusal
from harness.arrival_source import ArrivalSource
from harness.driver import serve
from harness.honesty import MOST_BREACHES
from harness.metrics import aggregate
from harness.recorder import RequestRecorder
from workloads import Request, Workload

STEP_S = 0.1
Distort = Callable[[Delivery], Delivery]


class Engine:
    """A token for every request each 0.1 s; `distort` sees what is handed over before the driver does."""

    def __init__(self, clock: Clock, distort: Distort, step_s: float = STEP_S) -> None:
        self._clock, self._distort, self._step_s = clock, distort, step_s
        self._left: dict[int, int] = {}
        self._new: list[int] = []
        self.polls = 0

    def start(self) -> dict[str, object]:
        return {}

    def submit(self, submission: Submission) -> Refusal | None:
        self._left[submission.request_id] = submission.max_new_tokens
        self._new.append(submission.request_id)
        return None

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def poll(self, now_s: float) -> Delivery | None:
        if not self._left:
            return None
        self.polls += 1
        self._clock.wait_until(now_s + self._step_s)
        rows, new, self._new = list(self._left), self._new, []
        finished = [request_id for request_id in rows if self._left[request_id] == 1]
        self._left = {request_id: left - 1 for request_id, left in self._left.items() if left > 1}
        return self._distort(Delivery(self._clock.now(), rows, [5] * len(rows), finished, new, scheduled_s=now_s))

    def close(self) -> None:
        """Nothing is held."""


def run(distort: Distort, *, output_tokens: int = 4, clock: Clock | None = None, step_s: float = STEP_S) -> Any:
    """Serve requests 0 and 1 at once, and request 2 a step later."""
    clock = clock or VirtualClock()
    arrivals_s = (0.0, 0.0, step_s)
    requests = tuple(Request(number, at_s, 10, output_tokens) for number, at_s in enumerate(arrivals_s))
    rows: list[dict[str, Any]] = []
    recorder = RequestRecorder(rows.append, 0, keep=frozenset({0}))
    source = ArrivalSource(Workload("w", "w", requests, "as given", (), None))
    serve(Engine(clock, distort, step_s), source, clock, recorder, {})
    recorder.abandon("the run ended")
    return recorder.breaches.sentences(), {row["request_id"]: row for row in rows}, recorder


def shifted(seconds: float) -> Distort:
    return lambda each: with_(each, time_s=each.time_s + seconds)


def with_(delivery: Delivery, **changes: Any) -> Delivery:
    fields = ("time_s", "request_ids", "token_ids", "finished", "admitted", "preempted", "scheduled_s")
    return Delivery(**({name: getattr(delivery, name) for name in fields} | changes))


def test_an_honest_engine_breaks_nothing() -> None:
    sentences, rows, recorder = run(lambda delivery: delivery)
    assert sentences == []
    assert [row["status"] for row in rows.values()] == ["finished"] * 3
    assert recorder.answers == {0: [5, 5, 5, 5]}


@pytest.mark.parametrize("step_s", [0.004, 0.02])
def test_nor_does_it_on_the_wall_clock(step_s: float) -> None:
    assert run(lambda delivery: delivery, clock=MonotonicClock(), step_s=step_s)[0] == []
    assert run(shifted(-0.0005), clock=MonotonicClock(), step_s=step_s)[0] == [], "within the tolerance"


def test_what_was_worked_out_during_the_poll_before_is_no_lie() -> None:
    """An engine that hands over the tokens of a step while it does the next one."""
    late: list[float] = [0.0]

    def one_step_behind(delivery: Delivery) -> Delivery:
        late.append(delivery.time_s)
        return with_(delivery, time_s=max(late[-2], delivery.scheduled_s) if late[-2] else delivery.time_s)

    assert run(one_step_behind)[0] == []


@pytest.mark.parametrize("clock", [VirtualClock, MonotonicClock])
def test_stamps_before_the_last_look_are_early(clock: type[Clock]) -> None:
    sentences, rows, _ = run(shifted(-2.5 * STEP_S), clock=clock())
    assert sentences == ["reported 12 tokens up to 0.25 s before they were handed over"]
    seen_s, due_s = [row["first_token_s"] for row in rows.values()], [0.1, 0.1, 0.2]
    assert all(seen >= due - 1e-6 for seen, due in zip(seen_s, due_s, strict=True)), "not as it says"
    assert clock is MonotonicClock or seen_s == pytest.approx(due_s), "a busy machine may be late, virtual time is not"


def test_virtual_time_is_exact() -> None:
    assert run(shifted(1e-9))[0] == ["reported 12 tokens up to 1e-09 s after they were handed over"]


def test_nobody_is_answered_before_being_sent() -> None:
    """Request 2 comes at 0.1 s: within the poll before, a stamp of 0.05 s would answer it before it was there."""

    def first_answer_early(delivery: Delivery) -> Delivery:
        return with_(delivery, time_s=0.1999) if 2 in delivery.admitted else delivery

    def before_it_was_sent(delivery: Delivery) -> Delivery:
        return with_(delivery, time_s=0.0999) if 2 in delivery.admitted else delivery

    assert run(first_answer_early)[0] == []
    sentences, rows, _ = run(before_it_was_sent)
    assert sentences == ["reported 3 tokens up to 0.1 s before they were handed over"]
    assert rows[2]["first_token_s"] >= rows[2]["dispatch_s"]


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf])
def test_no_time_at_all(time_s: float) -> None:
    (sentence,), rows, _ = run(lambda delivery: with_(delivery, time_s=time_s))
    assert sentence.startswith("reported 12 tokens")
    assert aggregate(list(rows.values())).metrics["finished_requests"] == 3


def test_time_does_not_go_back() -> None:
    times_s = iter([0.1, 0.2, 0.15, 0.4, 0.5])
    sentences, rows, _ = run(lambda delivery: with_(delivery, time_s=next(times_s)))
    assert sentences == ["reported 3 tokens up to 0.15 s before they were handed over"]
    assert rows[0]["token_times_s"] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_scheduled_before_it_was_sent() -> None:
    sentences, rows, _ = run(lambda delivery: with_(delivery, scheduled_s=-1.0))
    assert sentences == ["reported 3 requests scheduled before they were sent or later than now (request 0 first)"]
    assert rows[0]["first_scheduled_s"] is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda each: {"request_ids": [*each.request_ids, 0], "token_ids": [*each.token_ids, 5]},
            "handed over 4 tokens more than were asked for (request 0 asked for 4)",
        ),
        (
            lambda each: {"request_ids": [99, *each.request_ids], "token_ids": [5, *each.token_ids]},
            "handed over 5 tokens for requests that were never sent or had already ended (request 99 first)",
        ),
        (
            lambda each: {"preempted": [98], "admitted": [*each.admitted, 98]},
            "reported events of 10 requests that were never sent or had already ended (request 98 first)",
        ),
        (
            lambda each: {"token_ids": []},
            "handed over 5 deliveries with other than one token per row (0 tokens for 2 rows)",
        ),
    ],
    ids=["more_than_asked", "unknown", "unknown_event", "uneven"],
)
def test_answers_that_nobody_asked_for(change: Callable[[Delivery], dict[str, Sequence[int]]], sentence: str) -> None:
    sentences, rows, _ = run(lambda delivery: with_(delivery, **change(delivery)))
    assert sentence in sentences
    assert all(row["output_tokens"] <= 4 for row in rows.values())
    aggregate(list(rows.values()))


def test_ending_early_is_no_way_to_be_fast() -> None:
    def at_once(delivery: Delivery) -> Delivery:
        return with_(delivery, finished=delivery.admitted)

    sentences, rows, _ = run(at_once)
    assert "ended 3 requests before all tokens were there (request 0 after 1 of 4)" in sentences
    assert {row["status"] for row in rows.values()} == {"failed"}
    assert rows[0]["reason"] == "the engine ended it after 1 of 4 tokens"
    assert "output_tokens_per_s" not in aggregate(list(rows.values())).metrics


def test_an_engine_that_breaks_every_rule_is_not_served_to_the_end() -> None:
    ghosts = [99] * 100

    def haunted(delivery: Delivery) -> Delivery:
        return with_(delivery, request_ids=ghosts, token_ids=ghosts, finished=())

    sentences, rows, recorder = run(haunted, output_tokens=1000)
    assert sentences[-1] == f"serving was stopped after {MOST_BREACHES:,} such breaches"
    assert {row["status"] for row in rows.values()} == {"aborted"}
    assert recorder.ended == 3
