"""What the server of these tests does with a request: answer as vLLM does, answer with less, or fail in some way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.openai.server import Ask, Script, Wire, error_body

FIRST_TOKEN = 30
Tokens = Callable[[Sequence[int], int], Sequence[int]]


def counted(prompt: Sequence[int], asked: int) -> list[int]:
    """Known to the test without a model."""
    return [(len(prompt) + index) % 256 for index in range(asked)]


def chunk(ask: Ask, token_ids: Sequence[int] | None, text: str = "", reason: str | None = None, **more: Any) -> Any:
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
    choice |= {"delta": {"content": text}} if "messages" in ask.body else {"text": text}
    if token_ids is not None:
        choice["token_ids"] = list(token_ids)
    return {"id": "x", "object": "text_completion", "model": ask.body["model"], "choices": [choice], **more}


def usage(prompt_tokens: int, tokens: int) -> dict[str, dict[str, int]]:
    total = prompt_tokens + tokens
    return {"usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": total}}


def correct(
    tokens: Tokens = counted,
    *,
    refuses: Sequence[str] = (),
    ignores: Sequence[str] = (),
    per_chunk: int = 1,
    added: int = 0,
    done: bool = True,
    prompt_tokens: Callable[[Ask], int] = lambda ask: len(ask.prompt),
    gap_s: float = 0.0,
) -> Script:
    """As vLLM does it. `refuses`: fields with which a request is a 400; `ignores`: fields that do nothing."""

    async def script(ask: Ask, wire: Wire) -> None:
        options = ask.body.get("stream_options") or {}
        given = {*ask.body, *options} - set(ignores)
        wrong = sorted(given & set(refuses))
        if wrong:
            await wire.answer(400, error_body(f"unknown field {wrong[0]}"))
            return
        count = prompt_tokens(ask) + added
        answer = tokens(ask.body.get("prompt", ()), ask.asked)
        await wire.open_stream()
        for first in range(0, len(answer), per_chunk):
            part = answer[first : first + per_chunk]
            so_far = first + len(part)
            running = usage(count, so_far) if "continuous_usage_stats" in given else {}
            reason = "length" if so_far == ask.asked else "stop" if so_far == len(answer) else None
            ids = part if "return_token_ids" in given else None
            await wire.event(chunk(ask, ids, " x" * len(part), reason, **running))
            await asyncio.sleep(gap_s)
        if "include_usage" in given:
            await wire.event({"choices": [], **usage(count, len(answer))})
        await wire.end_stream(done)

    return script


def which(ask: Ask) -> int:
    """The request's own number, from its prompt (worlds.py): they come over several connections, in any order."""
    return ask.prompt[0] - FIRST_TOKEN


def faulty(
    faults: Mapping[int, Script], otherwise: Script | None = None, which: Callable[[Ask], int] = which
) -> Script:
    """These requests fail, the others are answered."""
    fine = otherwise or correct()

    async def script(ask: Ask, wire: Wire) -> None:
        await faults.get(which(ask), fine)(ask, wire)

    return script


def status(code: int, body: bytes = b"", **headers: str) -> Script:
    async def script(ask: Ask, wire: Wire) -> None:
        await wire.answer(code, body, **headers)

    return script


def begun(tokens: int, then: Script) -> Script:
    """So many tokens, and then something else on the same wire."""

    async def script(ask: Ask, wire: Wire) -> None:
        await wire.open_stream()
        for token in counted(ask.prompt, ask.asked)[:tokens]:
            await wire.event(chunk(ask, [token]))
        await then(ask, wire)

    return script


async def cut(ask: Ask, wire: Wire) -> None:
    wire.hang_up()


async def reset(ask: Ask, wire: Wire) -> None:
    wire.reset()


async def cut_within_an_event(ask: Ask, wire: Wire) -> None:
    await wire.raw(b'40\r\ndata: {"choices": [')
    wire.hang_up()


async def ended_without_reason(ask: Ask, wire: Wire) -> None:
    await wire.end_stream(done=False)


async def silence(ask: Ask, wire: Wire) -> None:
    await wire.until_they_hang_up()


async def comments(ask: Ask, wire: Wire) -> None:
    """Alive, and of no use: until the client has had enough."""
    for _ in range(2000):
        await wire.piece(b": still here\n\n")
        await asyncio.sleep(0.01)


def sends(data: bytes, after: int = 0) -> Script:
    """One event, well framed, after so many tokens."""

    async def then(ask: Ask, wire: Wire) -> None:
        await wire.event(data)
        await wire.end_stream()

    return begun(after, then)


def sends_raw(data: bytes, content_type: str = "text/event-stream") -> Script:
    """A whole 200 response whose body is not framed as anything."""

    async def script(ask: Ask, wire: Wire) -> None:
        await wire.answer(200, data, Content_Type=content_type)

    return script


async def no_http(ask: Ask, wire: Wire) -> None:
    await wire.raw(b"SSH-2.0-OpenSSH_9.2\r\n")
    wire.hang_up()


async def endless_line(ask: Ask, wire: Wire) -> None:
    await wire.open_stream()
    for _ in range(64):
        await wire.piece(b"data: " + b"a" * 65536)


async def short(ask: Ask, wire: Wire) -> None:
    """Stops by itself, with everything else in order."""
    given = counted(ask.prompt, ask.asked)[:-1]
    await wire.open_stream()
    for place, token in enumerate(given):
        await wire.event(chunk(ask, [token], reason="stop" if place == len(given) - 1 else None))
    await wire.event({"choices": [], **usage(len(ask.prompt), len(given))})
    await wire.end_stream()


def telling(prompt_tokens: int, tokens: int) -> Script:
    """All tokens, and a usage that is off by so many."""

    async def script(ask: Ask, wire: Wire) -> None:
        await wire.open_stream()
        await wire.event(chunk(ask, counted(ask.prompt, ask.asked), reason="length"))
        await wire.event({"choices": [], **usage(len(ask.prompt) + prompt_tokens, ask.asked + tokens)})
        await wire.end_stream()

    return script


async def one_too_many(ask: Ask, wire: Wire) -> None:
    await wire.open_stream()
    await wire.event(chunk(ask, counted(ask.prompt, ask.asked + 1), reason="length"))
    await wire.end_stream()
