"""`serve`: THE loop, the same for every engine, backend and clock.

One deciding reading of the clock per iteration. Requests are submitted when they are due, the engine is polled, what it
delivers is recorded with the time at which it happened. That time is the engine's word, so it is held against the clock
before the previous poll and after this one (honesty.py).
"""

from collections.abc import Callable, Mapping, Sequence

from engines.core.adapter import EngineAdapter, RepeatingAdapter, Submission
from engines.core.clock import Clock, VirtualClock
from harness.arrival_source import ArrivalSource
from harness.honesty import TOLERANCE_S, Handover
from harness.recorder import RequestRecorder
from workloads import Request

# How long to let a third-party engine work when it has nothing to hand over; ours never come here while busy.
IDLE_POLL_S = 0.5e-3

Prompts = Mapping[int, Sequence[int]]


def serve(
    adapter: EngineAdapter,
    arrivals: ArrivalSource,
    clock: Clock,
    recorder: RequestRecorder,
    prompts: Prompts,
    on_progress: Callable[[int, float], None] = lambda ended, now_s: None,
) -> None:
    """Run until every request has ended, or the engine has broken too many rules to go on.

    `prompts` is empty where only lengths matter.
    """
    tolerance_s = 0.0 if isinstance(clock, VirtualClock) else TOLERANCE_S
    repeating = adapter if isinstance(adapter, RepeatingAdapter) else None
    looked_s = 0.0
    while not recorder.breaches.too_many:
        now_s = clock.now()
        for request, arrival_s in arrivals.due(now_s):
            _submit(adapter, request, arrival_s, now_s, arrivals, recorder, prompts)
        if repeating is not None and (many := repeating.repeat(arrivals.next_s)) is not None:
            time_s = recorder.repeated(many, Handover(looked_s, now_s, clock.now(), tolerance_s))
            if many.finished:
                arrivals.ended(many.finished, time_s)
                on_progress(recorder.ended, time_s)
            looked_s = many.scheduled_s[-1]
            continue
        delivery = adapter.poll(now_s)
        if delivery is not None:
            time_s = recorder.delivered(delivery, Handover(looked_s, now_s, clock.now(), tolerance_s))
            ended = [*delivery.finished, *(failure.request_id for failure in delivery.failed)]
            if ended:
                arrivals.ended(ended, time_s)
                on_progress(recorder.ended, time_s)
        elif adapter.busy:
            clock.wait_until(min(now_s + IDLE_POLL_S, arrivals.next_s or now_s + IDLE_POLL_S))
        elif arrivals.next_s is not None:
            clock.wait_until(arrivals.next_s)
        elif arrivals.exhausted:
            return
        else:
            raise RuntimeError("requests are still expected, but nothing is scheduled and the engine is idle")
        looked_s = now_s


def _submit(
    adapter: EngineAdapter,
    request: Request,
    arrival_s: float,
    now_s: float,
    arrivals: ArrivalSource,
    recorder: RequestRecorder,
    prompts: Prompts,
) -> None:
    recorder.arrived(request, arrival_s, now_s)
    token_ids = prompts.get(request.request_id, ())
    refusal = adapter.submit(Submission(request.request_id, request.prompt_tokens, token_ids, request.output_tokens))
    if refusal is not None:
        recorder.refused(request.request_id, refusal.reason)
        arrivals.ended((request.request_id,), now_s)
