"""The mock engine as the driver sees it, on any clock.

Tokens are stamped when they are handed over, not when the law says: on the wall clock the difference is the driver's
own error, which is what the mock is there to measure. In simulated time the adapter moves the clock to the moment the
law names, so that both are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from engines.core.adapter import Delivery, Submission
from engines.core.clock import Clock
from engines.core.types import Refusal
from engines.mock.law import ABOUT, LatencyLaw
from engines.mock.service import MockService


class MockAdapter:
    """`next_arrival_s` in simulated time: the clock must not be moved past it, because requests are taken in at once.

    Without it the clock moves by itself, and a poll only looks.
    """

    def __init__(self, law: LatencyLaw, clock: Clock, next_arrival_s: Callable[[], float | None] | None = None) -> None:
        self._law = law
        self._clock = clock
        self._next_arrival_s = next_arrival_s
        self._service = MockService(law)

    def start(self) -> dict[str, object]:
        return {"model": ABOUT, **{f"mock_{name}": value for name, value in asdict(self._law).items()}}

    def submit(self, submission: Submission) -> Refusal | None:
        """The law counts from here: what came before is the driver's delay."""
        self._service.submit(
            submission.request_id, submission.prompt_tokens, submission.max_new_tokens, self._clock.now()
        )
        return None

    @property
    def busy(self) -> bool:
        return self._service.busy

    def poll(self, now_s: float) -> Delivery | None:
        if self._next_arrival_s is not None:
            self._move_clock(self._next_arrival_s())
        time_s = self._clock.now()
        output = self._service.take(time_s)
        if output is None:
            return None
        token_ids = (0,) * len(output.tokens)
        return Delivery(time_s, output.tokens, token_ids, output.finished, output.begun, scheduled_s=time_s)

    def close(self) -> None:
        """Nothing is held."""

    def _move_clock(self, arrival_s: float | None) -> None:
        moments_s = [moment_s for moment_s in (self._service.next_s, arrival_s) if moment_s is not None]
        if self._service.busy:
            self._clock.wait_until(min(moments_s))
