"""Turns deliveries into request records and step sights into step records, and hands them on as they complete.

Memory is bounded by the requests in flight: a request leaves as a row the moment it ends.
"""

from array import array
from collections.abc import Callable
from typing import Any

from engines.core.pipeline import Op
from harness.adapter import Delivery, StepSight
from harness.collectors.steps import OpSpan, StepObservation
from workloads import Request

RowSink = Callable[[dict[str, Any]], None]
Predict = Callable[[StepSight], float | None]


class _InFlight:
    __slots__ = (
        "arrival_s",
        "dispatch_s",
        "first_scheduled_s",
        "preempted_at_s",
        "preempted_s",
        "preemptions",
        "request",
        "times_s",
    )

    def __init__(self, request: Request, arrival_s: float, dispatch_s: float) -> None:
        self.request = request
        self.arrival_s = arrival_s
        self.dispatch_s = dispatch_s
        self.first_scheduled_s: float | None = None
        self.preemptions = 0
        self.preempted_s = 0.0
        self.preempted_at_s: float | None = None
        self.times_s = array("d")


class RequestRecorder:
    """`warmup_requests`: the first so many requests, by order of arrival, are marked and left out of the figures."""

    def __init__(self, sink: RowSink, warmup_requests: int) -> None:
        self._sink = sink
        self._warmup_left = warmup_requests
        self._warmup: set[int] = set()
        self._in_flight: dict[int, _InFlight] = {}
        self.ended = 0

    def arrived(self, request: Request, arrival_s: float, now_s: float) -> None:
        self._in_flight[request.request_id] = _InFlight(request, arrival_s, now_s)
        if self._warmup_left:
            self._warmup_left -= 1
            self._warmup.add(request.request_id)

    def refused(self, request_id: int, reason: str) -> None:
        self._leave(request_id, "refused", reason)

    def delivered(self, delivery: Delivery) -> None:
        in_flight = self._in_flight
        for request_id in delivery.admitted:
            in_flight[request_id].first_scheduled_s = delivery.scheduled_s
        for request_id in delivery.preempted:
            in_flight[request_id].preemptions += 1
            in_flight[request_id].preempted_at_s = delivery.scheduled_s
        time_s = delivery.time_s
        for request_id in delivery.request_ids:
            record = in_flight[request_id]
            record.times_s.append(time_s)
            if record.preempted_at_s is not None:  # back to where it was: it delivers again
                record.preempted_s += time_s - record.preempted_at_s
                record.preempted_at_s = None
        for request_id in delivery.finished:
            self._leave(request_id, "finished", "")

    def abandon(self, reason: str) -> None:
        """The run ends before they do."""
        for request_id in list(self._in_flight):
            self._leave(request_id, "aborted", reason)

    def _leave(self, request_id: int, status: str, reason: str) -> None:
        record = self._in_flight.pop(request_id)
        times_s = record.times_s
        self.ended += 1
        self._sink(
            {
                "request_id": request_id,
                "arrival_s": record.arrival_s,
                "dispatch_s": record.dispatch_s,
                "first_scheduled_s": record.first_scheduled_s,
                "first_token_s": times_s[0] if times_s else None,
                "last_token_s": times_s[-1] if times_s else None,
                "prompt_tokens": record.request.prompt_tokens,
                "output_tokens": len(times_s),
                "asked_tokens": record.request.output_tokens,
                "preemptions": record.preemptions,
                "preempted_s": record.preempted_s,
                "status": status,
                "reason": reason,
                "tier": "" if status == "refused" else "accel",
                "warmup": request_id in self._warmup,
                "token_times_s": times_s.tolist(),
            }
        )
        self._warmup.discard(request_id)


class StepRecorder:
    """A row per step. `predict` gives what the policy's predictor believed the step would take, where there is one."""

    def __init__(self, sink: Callable[[StepObservation], None], predict: Predict = lambda sight: None) -> None:
        self._sink = sink
        self._predict = predict

    def step(self, sight: StepSight) -> None:
        plan, result = sight.plan, sight.result
        units = result.units
        self._sink(
            StepObservation(
                step=plan.step,
                started_s=result.started_s,
                ended_s=result.ended_s,
                mode=plan.mode.value,
                decode_rows=sum(len(batch.decode_slots) + len(batch.host_slots) for batch in plan.batches),
                prefill_rows=sum(len(batch.prefills) for batch in plan.batches),
                prefill_tokens=sum(batch.prefill_tokens for batch in plan.batches),
                running=sight.running,
                waiting=sight.waiting,
                accel_blocks_used=sight.accel_blocks_used,
                host_blocks_used=sight.host_blocks_used,
                gpu_busy_s=units.gpu_s,
                cpu_busy_s=units.cpu_s,
                h2d_busy_s=units.h2d_s,
                d2h_busy_s=units.d2h_s,
                disk_busy_s=units.disk_s,
                scheduler_s=sight.scheduler_s,
                predicted_s=self._predict(sight),
                ops=units.ops,
                overruns=units.overruns,
                preempted=len(plan.preempted),
                moved_tokens=sum(move.tokens for move in plan.moves),
            )
        )


class TraceRecorder:
    """Every op of the first `steps` steps, for the timeline."""

    def __init__(self, steps: int = 200) -> None:
        self._steps = steps
        self.spans: list[OpSpan] = []

    def __call__(self, step: int, op: Op, start_s: float, end_s: float) -> None:
        if step <= self._steps:
            name = op.kind.value if op.layer < 0 else f"{op.kind.value} {op.layer}"
            self.spans.append(OpSpan(op.unit.name, name, start_s, end_s, step))
