"""Turns deliveries into request records and step sights into step records, and hands them on as they complete.

Memory is bounded by the requests in flight: a request leaves as a row the moment it ends.
"""

import math
import operator
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Any

from engines.core.adapter import Deliveries, Delivery
from engines.core.ops import Op
from engines.core.stretch import Stretch
from engines.core.types import Tier
from harness.adapter import StepSight
from harness.collectors.steps import OpSpan, StepObservation
from harness.honesty import Breach, Breaches, Handover
from workloads import Request

RowSink = Callable[[dict[str, Any]], None]
ColumnSink = Callable[[dict[str, list[Any]]], None]
Predict = Callable[[StepSight], float | None]
PredictEach = Callable[[Stretch], Sequence[float | None]]

ANY_TIME = Handover(-math.inf, -math.inf, math.inf, math.inf)


class _InFlight:
    __slots__ = (
        "arrival_s",
        "dispatch_s",
        "first_scheduled_s",
        "host_tokens",
        "preempted_at_s",
        "preempted_s",
        "preemptions",
        "request",
        "times_s",
        "token_ids",
    )

    def __init__(self, request: Request, arrival_s: float, dispatch_s: float, keeps_tokens: bool) -> None:
        self.request = request
        self.arrival_s = arrival_s
        self.dispatch_s = dispatch_s
        self.first_scheduled_s: float | None = None
        self.preemptions = 0
        self.preempted_s = 0.0
        self.preempted_at_s: float | None = None
        self.times_s = array("d")
        self.host_tokens = 0
        self.token_ids: list[int] | None = [] if keeps_tokens else None


class RequestRecorder:
    """`warmup_requests`: the first so many requests, by order of arrival, are marked and left out of the figures.

    `keep`: requests whose token ids are kept until the end, in `answers`; whoever asks for some bounds their number.
    What an engine hands over is not believed but checked: see `breaches`.
    """

    def __init__(self, sink: RowSink, warmup_requests: int, keep: Collection[int] = frozenset()) -> None:
        self._sink = sink
        self._warmup_left = warmup_requests
        self._warmup: set[int] = set()
        self._in_flight: dict[int, _InFlight] = {}
        self._keep = keep
        self._last_time_s = -math.inf
        self.answers: dict[int, list[int]] = {}  # of finished requests
        self.breaches = Breaches()
        self.ended = 0

    def arrived(self, request: Request, arrival_s: float, now_s: float) -> None:
        keeps_tokens = request.request_id in self._keep
        self._in_flight[request.request_id] = _InFlight(request, arrival_s, now_s, keeps_tokens)
        if self._warmup_left:
            self._warmup_left -= 1
            self._warmup.add(request.request_id)

    def refused(self, request_id: int, reason: str) -> None:
        self._leave(request_id, "refused", reason)

    def delivered(self, delivery: Delivery, handover: Handover = ANY_TIME) -> float:
        """Returns the time at which it happened: the engine's where that is possible, else the driver's own."""
        self._schedule(delivery, handover)
        time_s = self._time_of(delivery, handover)
        self._tokens(delivery, time_s)
        for request_id in delivery.on_host:
            if (record := self._known(request_id)) is not None:
                record.host_tokens += 1
        for request_id in delivery.finished:
            self._finish(request_id)
        for failure in delivery.failed:
            if self._known(failure.request_id) is not None:
                self._leave(failure.request_id, "failed", f"{failure.kind}: {failure.detail}")
        return time_s

    def repeated(self, many: Deliveries, handover: Handover) -> float:
        """Deliveries in a row, checked as one where nothing about them is odd, and else one by one."""
        records = [self._in_flight.get(request_id) for request_id in many.request_ids]
        times_s = array("d", many.times_s)
        if self._are_plain(records, times_s, handover):
            for record in records:
                assert record is not None
                record.times_s.extend(times_s)
            for request_id in many.on_host:
                self._in_flight[request_id].host_tokens += len(times_s)
            self._last_time_s = times_s[-1]
            for request_id in many.finished:
                self._finish(request_id)
            return times_s[-1]
        for delivery in many:
            polled_s, handed_s = delivery.scheduled_s, min(delivery.time_s, handover.handed_s)
            self.delivered(delivery, Handover(polled_s, polled_s, handed_s, handover.tolerance_s))
        return self._last_time_s

    def _are_plain(self, records: Sequence[_InFlight | None], times_s: "array[float]", handover: Handover) -> bool:
        """In time and in order, of requests that had asked and are owed so many, and whose tokens nobody keeps."""
        in_order = all(map(operator.le, times_s, times_s[1:]))
        if not (in_order and max(self._last_time_s, handover.polled_s) <= times_s[0] <= times_s[-1]):
            return False
        if times_s[-1] > handover.handed_s:
            return False
        for record in records:
            if record is None or record.token_ids is not None or record.preempted_at_s is not None:
                return False
            if len(record.times_s) + len(times_s) > record.request.output_tokens:
                return False
        return True

    def abandon(self, reason: str) -> None:
        """The run ends before they do."""
        for request_id in list(self._in_flight):
            self._leave(request_id, "aborted", reason)

    def _schedule(self, delivery: Delivery, handover: Handover) -> None:
        scheduled_s = delivery.scheduled_s
        for request_id in delivery.admitted:
            record = self._known(request_id)
            if record is None:
                continue
            if record.dispatch_s - handover.tolerance_s <= scheduled_s <= handover.handed_s + handover.tolerance_s:
                record.first_scheduled_s = scheduled_s
            else:
                self.breaches.add(Breach.UNSCHEDULED, f"request {request_id}")
        for request_id in delivery.preempted:
            record = self._known(request_id)
            if record is not None:
                record.preemptions += 1
                if record.preempted_at_s is None:  # else it was on the way back, and has been waiting all along
                    record.preempted_at_s = scheduled_s

    def _time_of(self, delivery: Delivery, handover: Handover) -> float:
        """Tokens come in order, within the handover, and to nobody who had not asked yet."""
        time_s, latest_s, tolerance_s = delivery.time_s, self._last_time_s, handover.tolerance_s
        is_possible = handover.allows(time_s) and time_s >= latest_s - tolerance_s
        if is_possible and (time_s >= handover.polled_s or self._asked_by(time_s + tolerance_s, delivery.request_ids)):
            self._last_time_s = max(latest_s, time_s)
        else:
            if delivery.request_ids:
                self.breaches.mistimed(len(delivery.request_ids), time_s, handover.handed_s)
            self._last_time_s = max(latest_s, handover.handed_s)
        return self._last_time_s

    def _asked_by(self, time_s: float, request_ids: Sequence[int]) -> bool:
        in_flight = self._in_flight
        return all(in_flight[row].dispatch_s <= time_s for row in request_ids if row in in_flight)

    def _tokens(self, delivery: Delivery, time_s: float) -> None:
        in_flight, token_ids = self._in_flight, delivery.token_ids
        is_even = len(token_ids) == len(delivery.request_ids)
        if not is_even:
            self.breaches.add(Breach.UNEVEN, f"{len(token_ids)} tokens for {len(delivery.request_ids)} rows")
        for row, request_id in enumerate(delivery.request_ids):
            record = in_flight.get(request_id)
            if record is None:
                self.breaches.add(Breach.UNASKED, f"request {request_id}")
                continue
            if len(record.times_s) == record.request.output_tokens:
                asked = record.request.output_tokens
                self.breaches.add(Breach.SURPLUS, f"request {request_id} asked for {asked}")
                continue
            record.times_s.append(time_s)
            if record.token_ids is not None and is_even:
                record.token_ids.append(token_ids[row])
            if record.preempted_at_s is not None:  # back to where it was: it delivers again
                record.preempted_s += max(0.0, time_s - record.preempted_at_s)
                record.preempted_at_s = None

    def _finish(self, request_id: int) -> None:
        record = self._known(request_id)
        if record is None:
            return
        given, asked = len(record.times_s), record.request.output_tokens
        if given < asked:
            self.breaches.add(Breach.CUT_SHORT, f"request {request_id} after {given} of {asked}")
            self._leave(request_id, "failed", f"the engine ended it after {given} of {asked} tokens")
            return
        if record.token_ids is not None:
            self.answers[request_id] = record.token_ids
        self._leave(request_id, "finished", "")

    def _known(self, request_id: int) -> _InFlight | None:
        record = self._in_flight.get(request_id)
        if record is None:
            self.breaches.add(Breach.STRANGER, f"request {request_id}")
        return record

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
                "tier": _tier(record),
                "warmup": request_id in self._warmup,
                "token_times_s": times_s.tolist(),
            }
        )
        self._warmup.discard(request_id)


def _tier(record: _InFlight) -> str:
    """Where most of its tokens attended; nowhere before it was ever scheduled."""
    if record.first_scheduled_s is None:
        return ""
    return "host" if 2 * record.host_tokens > len(record.times_s) else "accel"


class StepRecorder:
    """A row per step. `predict` gives what the policy's predictor believed the step would take, where there is one.
    Stretches go to `columns`, whole columns at a time, or to the other sink row by row.
    """

    def __init__(
        self,
        sink: Callable[[StepObservation], None],
        predict: Predict = lambda sight: None,
        predict_each: PredictEach = lambda stretch: [None] * len(stretch),
        columns: ColumnSink | None = None,
    ) -> None:
        self._sink = sink
        self._predict = predict
        self._predict_each = predict_each
        self._columns = columns

    def stretch(self, stretch: Stretch, scheduler_s: float) -> None:
        columns = stretch_columns(stretch, self._predict_each(stretch), scheduler_s)
        if self._columns is not None:
            self._columns(columns)
            return
        for row in zip(*columns.values(), strict=True):
            self._sink(StepObservation(**dict(zip(columns, row, strict=True))))

    def step(self, sight: StepSight) -> None:
        plan, result = sight.plan, sight.result
        units = result.units
        self._sink(
            StepObservation(
                step=plan.step,
                started_s=result.started_s,
                ended_s=result.ended_s,
                mode=plan.mode.value,
                decode_rows=sum([len(batch.decode_slots) + len(batch.host_slots) for batch in plan.batches]),
                prefill_rows=sum([len(batch.prefills) for batch in plan.batches]),
                prefill_tokens=sum([batch.prefill_tokens for batch in plan.batches]),
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
                moved_tokens=sum([move.tokens for move in plan.moves]),
                found_tokens=plan.found_tokens,
            )
        )


def stretch_columns(stretch: Stretch, predicted_s: Sequence[float | None], scheduler_s: float) -> dict[str, list[Any]]:
    """What `StepRecorder.step` says of each of its steps, as columns in the order of `StepObservation`."""
    repeats, steps, rows = stretch.repeats, len(stretch), len(stretch.request_ids)
    gpu_s, cpu_s, h2d_s, d2h_s, disk_s = (list(unit_s) for unit_s in zip(*repeats.busy_s, strict=True))
    return {
        "step": list(range(stretch.plan.step, stretch.plan.step + steps)),
        "started_s": list(repeats.started_s),
        "ended_s": list(repeats.ended_s),
        "mode": [stretch.plan.mode.value] * steps,
        "decode_rows": [rows] * steps,
        "prefill_rows": [0] * steps,
        "prefill_tokens": [0] * steps,
        "running": stretch.running(),
        "waiting": [stretch.after.waiting] * steps,
        "accel_blocks_used": stretch.blocks_used(Tier.ACCEL),
        "host_blocks_used": stretch.blocks_used(Tier.HOST),
        "gpu_busy_s": gpu_s,
        "cpu_busy_s": cpu_s,
        "h2d_busy_s": h2d_s,
        "d2h_busy_s": d2h_s,
        "disk_busy_s": disk_s,
        "scheduler_s": [scheduler_s] * steps,
        "predicted_s": list(predicted_s),
        "ops": [repeats.ops] * steps,
        "overruns": [0] * steps,
        "preempted": [0] * steps,
        "moved_tokens": [0] * steps,
        "found_tokens": [0] * steps,
    }


class TraceRecorder:
    """Every op of the first `steps` steps, for the timeline."""

    def __init__(self, steps: int = 200) -> None:
        self._steps = steps
        # By step, and named when asked for: a run has other things to do.
        self._ops: list[tuple[int, list[Op], list[float], list[float]]] = []

    def __call__(self, step: int, op: Op, start_s: float, end_s: float) -> None:
        self.all_of(step, (op,), (start_s,), (end_s,))

    def all_of(self, step: int, ops: Sequence[Op], starts_s: Sequence[float], ends_s: Sequence[float]) -> None:
        """The same of all ops of a step."""
        if step > self._steps:
            return
        if not self._ops or self._ops[-1][0] != step:
            self._ops.append((step, [], [], []))
        _, all_ops, all_starts_s, all_ends_s = self._ops[-1]
        all_ops.extend(ops)
        all_starts_s.extend(starts_s)
        all_ends_s.extend(ends_s)

    @property
    def spans(self) -> list[OpSpan]:
        return [
            OpSpan(op.unit.name, _name(op), start_s, end_s, step)
            for step, ops, starts_s, ends_s in self._ops
            for op, start_s, end_s in zip(ops, starts_s, ends_s, strict=True)
        ]


def _name(op: Op) -> str:
    """What and in which layer, and on which accelerator where there are several."""
    name = op.kind.value if op.layer < 0 else f"{op.kind.value} {op.layer}"
    return f"{name} ({op.unit.name} {op.device + 1})" if op.device else name
