"""A small HTTP server on loopback, in a thread, that answers as a script tells it: byte by byte, rightly or wrongly.

Raw sockets and not a framework, because a framework would never cut a chunk in the middle. A script is called per
request with what was asked and the wire to answer on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from engines.openai.probe import PROBE_TOKENS

MODEL = "tiny"


@dataclass(frozen=True)
class Ask:
    """`number`: counts the requests that are no probes, from 0; -1 for a probe, known by how little it asks for."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int

    @property
    def asked(self) -> int:
        return int(self.body.get("max_tokens") or self.body["max_completion_tokens"])

    @property
    def prompt(self) -> list[int]:
        return list(self.body["prompt"])


class Wire:
    """One connection. `requests`: how many have come over it, this one included."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.requests = 0

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole response; `_` in a header's name stands for `-`."""
        lines = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        await self.raw(_head(status, lines) + body)

    async def open_stream(self, content_type: str = "text/event-stream; charset=utf-8") -> None:
        await self.raw(_head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"}))

    async def piece(self, data: bytes) -> None:
        """One chunk of a chunked response."""
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, data: object) -> None:
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        await self.piece(b"data: " + text + b"\n\n")

    async def end_stream(self, done: bool = True) -> None:
        if done:
            await self.event(b"[DONE]")
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def hang_up(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()

    async def until_they_hang_up(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._reader.read()


Script = Callable[[Ask, Wire], Coroutine[Any, Any, None]]


KNOCKING_S = 0.02


@dataclass
class Server:
    """`with Server(script) as server:`. `models`: entries of /models; `version`: None for a server that has none."""

    script: Script
    probed: Script | None = None  # for the probes; the script itself, when not given
    models: list[Any] = field(default_factory=lambda: [{"id": MODEL}])
    version: str | None = "0.0-mock"
    key: str = ""  # where one is wanted
    idle_s: float | None = None  # after so long without a request a connection is closed
    asks: list[Ask] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # it has gone already
            self._loop.call_soon_threadsafe(self.leave)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def leave(self) -> None:
        """From now on nobody listens. Only from inside a script."""
        self._stop.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def serving(self) -> list[Ask]:
        return [ask for ask in self.asks if ask.number >= 0]

    async def _main(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        ready.set()
        await self._stop.wait()
        seen = -1
        while seen != self.connections:  # who knocks at this very moment is let in: half let in, nobody would close it
            seen = self.connections
            await asyncio.sleep(KNOCKING_S)
        server.close()
        for _ in range(10):  # who has been let in already gets as far as being shown out
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            wire = Wire(reader, writer)
            while request := await self._request(reader):
                wire.requests += 1
                await self._answered(*request, wire)
                if writer.is_closing():
                    break
        except asyncio.CancelledError:
            writer.transport.abort()  # the server leaves; nobody else ends this task
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes] | None:
        try:
            async with asyncio.timeout(self.idle_s):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return None
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): text.strip() for name, _, text in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return method, path, headers, body

    async def _answered(self, method: str, path: str, headers: dict[str, str], body: bytes, wire: Wire) -> None:
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            await wire.answer(401, error_body(f"wrong key: {headers.get('authorization')}"))
        elif method == "GET":
            found = {"/v1/models": {"data": self.models}, "/version": {"version": self.version}}
            known = path in found and not (path == "/version" and self.version is None)
            await wire.answer(200 if known else 404, json.dumps(found.get(path, {})).encode(), Server="mock")
        elif not path.startswith("/v1/"):
            await wire.answer(404)
        else:
            ask = self._ask(path, headers, json.loads(body))
            self.asks.append(ask)
            script = self.probed if ask.number < 0 and self.probed else self.script
            await script(ask, wire)

    def _ask(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Ask:
        ask = Ask(path.removeprefix("/v1/"), headers, body, -1)
        return ask if ask.asked == PROBE_TOKENS else replace(ask, number=len(self.serving))


def error_body(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode("latin-1")
