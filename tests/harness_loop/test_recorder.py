"""What becomes a row: token times, preemption, warm-up, refusals; and the columns of a step."""

from typing import Any

from engines.core.adapter import Delivery
from engines.core.pipeline import lower
from engines.core.types import (
    Batch,
    BlockChanges,
    Mode,
    Move,
    PrefillChunk,
    StepPlan,
    StepResult,
    Tier,
    Unit,
    UnitTimes,
)
from harness.adapter import StepSight
from harness.collectors.steps import StepObservation, step_columns
from harness.recorder import RequestRecorder, StepRecorder, TraceRecorder
from results.schema import REQUESTS, STEPS
from tests.backends.plans import PLACEMENT, PLANS
from workloads import Request


class Recording:
    """A recorder and its rows."""

    def __init__(self, warmup_requests: int = 0) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.recorder = RequestRecorder(self._keep, warmup_requests)

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows[row["request_id"]] = row

    def arrive(self, *request_ids: int, at_s: float = 0.0, now_s: float = 0.0, output: int = 3) -> None:
        for request_id in request_ids:
            self.recorder.arrived(Request(request_id, at_s, 10, output), at_s, now_s)

    def deliver(
        self,
        time_s: float,
        *tokens_for: int,
        finished: tuple[int, ...] = (),
        admitted: tuple[int, ...] = (),
        preempted: tuple[int, ...] = (),
        took_s: float = 0.5,
    ) -> None:
        """A step that ended at `time_s` and was decided `took_s` before."""
        self.recorder.delivered(
            Delivery(
                time_s, tokens_for, [0] * len(tokens_for), finished, admitted, preempted, scheduled_s=time_s - took_s
            )
        )


def test_times_of_a_request() -> None:
    recording = Recording()
    recording.arrive(4, at_s=1.0, now_s=1.25)
    recording.deliver(2.5, admitted=(4,))  # a first chunk: scheduled, no token yet
    recording.deliver(3.0, 4)
    recording.deliver(3.5, 4)
    assert recording.rows == {}
    recording.deliver(4.0, 4, finished=(4,))
    assert recording.rows[4] == {
        "request_id": 4,
        "arrival_s": 1.0,
        "dispatch_s": 1.25,
        "first_scheduled_s": 2.0,
        "first_token_s": 3.0,
        "last_token_s": 4.0,
        "prompt_tokens": 10,
        "output_tokens": 3,
        "asked_tokens": 3,
        "preemptions": 0,
        "preempted_s": 0.0,
        "status": "finished",
        "reason": "",
        "tier": "accel",
        "warmup": False,
        "token_times_s": [3.0, 3.5, 4.0],
    }
    assert recording.recorder.ended == 1


def test_a_row_has_the_columns_of_the_records() -> None:
    recording = Recording()
    recording.arrive(1, output=1)
    recording.deliver(1.0, 1, finished=(1,), admitted=(1,))
    assert list(recording.rows[1]) == REQUESTS.names


def test_preemption_counts_until_tokens_come_again() -> None:
    recording = Recording()
    recording.arrive(1, 2)
    recording.deliver(1.0, 1, 2, admitted=(1, 2))
    recording.deliver(2.0, 1, preempted=(2,))  # decided at 1.5
    recording.deliver(3.0, 1, finished=(1,))
    recording.deliver(4.0)  # a chunk of the prefill that is done again
    recording.deliver(5.0, 2)
    recording.deliver(6.0, 2, finished=(2,))
    assert (recording.rows[1]["preemptions"], recording.rows[1]["preempted_s"]) == (0, 0.0)
    assert (recording.rows[2]["preemptions"], recording.rows[2]["preempted_s"]) == (1, 5.0 - 1.5)


def test_two_preemptions_add_up() -> None:
    recording = Recording()
    recording.arrive(1)
    recording.deliver(1.0, 1, admitted=(1,))
    recording.deliver(2.0, preempted=(1,))
    recording.deliver(3.0, 1)
    recording.deliver(4.0, preempted=(1,))
    recording.deliver(6.0, 1, finished=(1,))
    assert (recording.rows[1]["preemptions"], recording.rows[1]["preempted_s"]) == (2, 1.5 + 2.5)


def test_a_preemption_on_the_way_back_does_not_restart_the_count() -> None:
    """It is admitted again, loses its place once more before it has said anything, and all of it was lost time."""
    recording = Recording()
    recording.arrive(1)
    recording.deliver(1.0, 1, admitted=(1,))
    recording.deliver(2.0, preempted=(1,))  # decided at 1.5
    recording.deliver(3.0)
    recording.deliver(4.0, preempted=(1,))
    recording.deliver(6.0, 1, finished=(1,))
    assert (recording.rows[1]["preemptions"], recording.rows[1]["preempted_s"]) == (2, 6.0 - 1.5)


def test_a_request_preempted_before_its_first_token() -> None:
    recording = Recording()
    recording.arrive(1, output=1)
    recording.deliver(1.0, admitted=(1,))
    recording.deliver(2.0, preempted=(1,))
    recording.deliver(4.0, 1, finished=(1,))
    row = recording.rows[1]
    assert (row["first_scheduled_s"], row["first_token_s"], row["preempted_s"]) == (0.5, 4.0, 2.5)


def test_warm_up_marks_the_first_arrivals_however_they_end() -> None:
    recording = Recording(warmup_requests=2)
    recording.arrive(7, 3, 5, output=1)
    recording.recorder.refused(7, "no")
    recording.deliver(1.0, 5, finished=(5,), admitted=(5,))
    recording.deliver(2.0, 3, finished=(3,), admitted=(3,))
    assert {request_id: row["warmup"] for request_id, row in recording.rows.items()} == {7: True, 3: True, 5: False}


def test_what_is_abandoned_says_why_and_how_far_it_came() -> None:
    recording = Recording()
    recording.arrive(1, 2)
    recording.deliver(1.0, 1, admitted=(1,))
    recording.recorder.abandon("interrupted")
    assert [row["status"] for row in recording.rows.values()] == ["aborted", "aborted"]
    assert [row["reason"] for row in recording.rows.values()] == ["interrupted", "interrupted"]
    assert [row["output_tokens"] for row in recording.rows.values()] == [1, 0]
    assert [row["tier"] for row in recording.rows.values()] == ["accel", ""], "the second never had a place"
    assert recording.recorder.ended == 2


def sight() -> StepSight:
    batches = (
        Batch((1, 2), (5, 6), (PrefillChunk(3, 9, 0, 20, False), PrefillChunk(4, 8, 4, 6, True)), (5,), (7,)),
        Batch((6,), (9,)),
    )
    moves = (Move(8, Tier.ACCEL, (1,), Tier.HOST, (2,), 10), Move(9, Tier.HOST, (1,), Tier.ACCEL, (2,), 32))
    plan = StepPlan(12, Mode.ASYMMETRIC, batches, BlockChanges(), moves, preempted=(8, 11), found_tokens=48)
    result = StepResult((), 1.0, 1.5, UnitTimes(0.1, 0.2, 0.3, 0.4, 0.5, ops=17, overruns=2))
    return StepSight(plan, result, 0.003, running=6, waiting=4, accel_blocks_used=21, host_blocks_used=3)


def test_the_columns_of_a_step() -> None:
    seen: list[StepObservation] = []
    StepRecorder(seen.append, lambda sight: 0.25 * sight.plan.step).step(sight())
    assert seen == [
        StepObservation(
            step=12,
            started_s=1.0,
            ended_s=1.5,
            mode="asymmetric",
            decode_rows=4,
            prefill_rows=2,
            prefill_tokens=26,
            running=6,
            waiting=4,
            accel_blocks_used=21,
            host_blocks_used=3,
            gpu_busy_s=0.1,
            cpu_busy_s=0.2,
            h2d_busy_s=0.3,
            d2h_busy_s=0.4,
            disk_busy_s=0.5,
            scheduler_s=0.003,
            predicted_s=3.0,
            ops=17,
            overruns=2,
            preempted=2,
            moved_tokens=42,
            found_tokens=48,
        )
    ]
    assert list(step_columns(seen)) == STEPS.names


def test_no_prediction_is_none() -> None:
    seen: list[StepObservation] = []
    StepRecorder(seen.append).step(sight())
    assert seen[0].predicted_s is None


def test_the_trace_keeps_the_first_steps() -> None:
    trace = TraceRecorder(steps=2)
    move, first, attention, *_ = lower(PLANS["moves"], PLACEMENT).ops[1:]
    for step in (1, 2, 3):
        for op in (move, first, attention):
            trace(step, op, float(step), step + 0.5)
    assert [(span.step, span.unit, span.name) for span in trace.spans] == [
        (step, unit, name)
        for step in (1, 2)
        for unit, name in ((Unit.H2D.name, "move"), ("GPU", "first 0"), ("GPU", "attention 0"))
    ]
    assert {(span.start_s, span.end_s) for span in trace.spans} == {(1.0, 1.5), (2.0, 2.5)}


def test_a_token_for_nobody_is_a_breach_not_a_row() -> None:
    recording = Recording()
    recording.deliver(1.0, 99)
    assert recording.rows == {}
    assert recording.recorder.breaches.total == 1
