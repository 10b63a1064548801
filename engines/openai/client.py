"""Requests to one endpoint: sent, their events handed on as they come, tried again where they may and were told to.

What goes wrong comes out as a FaultError. Not here: connections (connections.py), which symptom is which fault
(symptoms.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp

from engines.openai.chunks import read_object
from engines.openai.connections import Connections
from engines.openai.faults import Fault, FaultError
from engines.openai.secret import Secret
from engines.openai.sse import EventParser
from engines.openai.symptoms import as_faults, beginning, refusal

FAREWELL_S = 1.0  # after the last event, for the end of the response: then the connection can be used again
MOST_LISTING_BYTES = 1 << 20
MOST_WAIT_S = 60.0
FIRST_WAIT_S = 0.5  # doubled each time, where the server does not say how long
MAY_PASS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Limits:
    connect_s: float
    silence_s: float
    request_s: float
    retries: int
    max_connections: int | None


class Listener(Protocol):
    def take(self, event: bytes) -> bool:
        """One event; True when it was the last."""

    def close(self) -> None:
        """The stream has ended without a last event."""


class Client:
    """Is made, used and closed inside one running event loop."""

    def __init__(self, base_url: str, secret: Secret, limits: Limits) -> None:
        self._base_url = base_url
        self._limits = limits
        self._connections = Connections(limits.connect_s, limits.silence_s, limits.max_connections, secret.headers)
        self.retries = 0

    @property
    def renewed_connections(self) -> int:
        return self._connections.renewed

    async def close(self) -> None:
        await self._connections.close()

    async def get(self, url: str) -> tuple[dict[str, Any], str]:
        """(a JSON object, what the server calls itself)."""
        async with self._faults(), await self._connections.get(url) as response:
            if response.status != HTTPStatus.OK:
                raise await refusal(response)
            return read_object(await beginning(response, MOST_LISTING_BYTES)), response.headers.get("Server", "")

    async def stream(self, path: str, body: bytes, listener: Listener) -> None:
        """Returns some time after the listener has had its last event. Waiting to try again counts as well."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + self._limits.request_s
        async with self._faults():
            attempt = 0
            while True:
                try:
                    await self._exchange(path, body, listener)
                    return
                except FaultError as error:
                    wait_s = _wait_s(error, attempt)
                    is_last = attempt == self._limits.retries
                    if is_last or wait_s is None or wait_s > min(MOST_WAIT_S, deadline_s - clock()):
                        raise
                attempt += 1
                self.retries += 1
                await asyncio.sleep(wait_s)

    async def _exchange(self, path: str, body: bytes, listener: Listener) -> None:
        async with await self._connections.post(f"{self._base_url}/{path}", body) as response:
            if response.status != HTTPStatus.OK:
                raise await refusal(response)
            await _read(response.content, listener)

    @asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        """Of the transport, and the limit on the whole."""
        try:
            async with (
                asyncio.timeout(self._limits.request_s),
                as_faults(self._limits.connect_s, self._limits.silence_s),
            ):
                yield
        except TimeoutError:
            raise FaultError(Fault.SLOW, f"not done within {self._limits.request_s:g} s") from None


async def _read(content: aiohttp.StreamReader, listener: Listener) -> None:
    parser, has_events = EventParser(), False
    while piece := await content.readany():
        for event in parser.feed(piece):
            has_events = True
            if listener.take(event):
                await _see_off(content)
                return
    if not has_events:
        raise FaultError(Fault.GARBAGE, "the answer is no stream of events", parser.rest.decode(errors="replace"))
    listener.close()


async def _see_off(content: aiohttp.StreamReader) -> None:
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(FAREWELL_S):
            while await content.readany():
                pass


def _wait_s(error: FaultError, attempt: int) -> float | None:
    """How long to wait before trying again; None where that would be of no use."""
    if error.status not in MAY_PASS:
        return None
    return FIRST_WAIT_S * 2**attempt if error.retry_after_s is None else error.retry_after_s
