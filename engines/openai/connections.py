"""Connections to one endpoint: kept between requests, made anew where the server has let go of one, closed for good.

aiohttp, because its parser is C and a chunk costs tens of microseconds. No redirects, no proxies from the environment,
no cookies: the key goes where the options say and nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from types import SimpleNamespace
from weakref import WeakSet

import aiohttp

KEEPALIVE_S = 4.0  # uvicorn, under most servers, closes after 5
STALE_S = 1.0  # a connection that was closed while nobody used it shows that within a round trip
CLOSING_TURNS = 100
MOST_BYTES_AT_ONCE = 1 << 19  # aiohttp warns of larger ones
HEADERS = {"User-Agent": "hybrid-harness", "Accept-Encoding": "identity"}


@dataclass(slots=True)
class _Way:
    """How one request went out."""

    is_old: bool = False


class Connections:
    """Is made, used and closed inside one running event loop. Raises what aiohttp raises."""

    def __init__(self, connect_s: float, silence_s: float, most: int | None, headers: Mapping[str, str]) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_mark_as_old)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=most or 0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=None, socket_factory=self._socket
            ),
            headers={**HEADERS, **headers},
            timeout=aiohttp.ClientTimeout(sock_connect=connect_s, sock_read=silence_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[tracing],
        )
        self.renewed = 0

    async def get(self, url: str) -> aiohttp.ClientResponse:
        return await self._session.get(url, allow_redirects=False)

    async def post(self, url: str, body: bytes) -> aiohttp.ClientResponse:
        """Once more on a new connection where a kept one turns out to be closed, as every client does it.

        A server may close it at any moment, and the request meets that on its way. It has not been looked at then; had
        the server broken over it, it would have had to do so at once.
        """
        way, clock = _Way(), asyncio.get_running_loop().time
        sent_s = clock()
        try:
            return await self._post(url, body, way)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not way.is_old or clock() - sent_s > STALE_S:
                raise
        self.renewed += 1
        return await self._post(url, body, _Way())

    async def _post(self, url: str, body: bytes, way: _Way) -> aiohttp.ClientResponse:
        return await self._session.post(
            url,
            data=body if len(body) < MOST_BYTES_AT_ONCE else BytesIO(body),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
            trace_request_ctx=way,
        )

    async def close(self) -> None:
        """Transports close in turns of the loop, but not before their bytes are out, which nobody may want any more."""
        await self._session.close()
        for _ in range(CLOSING_TURNS):
            left = [each for each in self._sockets if each.fileno() >= 0]
            for each in left:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            if not left:
                return
            await asyncio.sleep(0)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made


async def _mark_as_old(
    session: aiohttp.ClientSession, context: SimpleNamespace, parameters: aiohttp.TraceConnectionReuseconnParams
) -> None:
    way = context.trace_request_ctx
    if way is not None:
        way.is_old = True
