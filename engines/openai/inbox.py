"""What has come in since the last poll, in the form in which it is handed over.

All of it gets the time at which the first of it was there: the event loop reads every socket that has something before
any of it is looked at, and what looking at the others' took is no part of anybody's latency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engines.core.adapter import Delivery, Failure
from engines.core.clock import Clock


class Inbox:
    """`on_news` is told of everything that is added."""

    def __init__(self, clock: Clock, on_news: Callable[[], None]) -> None:
        self._clock = clock
        self._on_news = on_news
        self._in_flight: set[int] = set()
        self._is_new_round = True
        self._clear()

    def _clear(self) -> None:
        self._time_s = 0.0
        self._request_ids: list[int] = []
        self._token_ids: list[int] = []
        self._finished: list[int] = []
        self._failed: list[Failure] = []

    @property
    def has_news(self) -> bool:
        return bool(self._request_ids or self._finished or self._failed)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def expect(self, request_id: int) -> None:
        self._in_flight.add(request_id)

    def abandon(self) -> None:
        """Nothing is expected any more, and whatever still comes is nobody's."""
        self._in_flight.clear()
        self._clear()

    def begin_round(self) -> None:
        """The loop is about to run: what comes now comes later than what came before."""
        self._is_new_round = True

    def tokens(self, request_id: int, token_ids: Sequence[int], are_all: bool) -> None:
        if request_id not in self._in_flight:
            return
        self._stamp()
        self._request_ids += [request_id] * len(token_ids)
        self._token_ids += token_ids
        if are_all:
            self._in_flight.discard(request_id)
            self._finished.append(request_id)

    def failed(self, failure: Failure) -> None:
        """Whoever has ended does not fail any more: the farewell of a finished answer may go wrong."""
        if failure.request_id in self._in_flight:
            self._stamp()
            self._in_flight.discard(failure.request_id)
            self._failed.append(failure)

    def take(self) -> Delivery | None:
        if not self.has_news:
            return None
        delivery = Delivery(self._time_s, self._request_ids, self._token_ids, self._finished, failed=self._failed)
        self._clear()
        return delivery

    def _stamp(self) -> None:
        if self._is_new_round:
            self._time_s = self._clock.now()
            self._is_new_round = False
        self._on_news()
