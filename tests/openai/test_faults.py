"""Every fault on demand: it ends its own request, as a failure of its own kind, and none beside it."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from engines.openai import client
from engines.openai.faults import MEANINGS, Fault
from tests.openai.scripts import (
    begun,
    comments,
    correct,
    cut,
    cut_within_an_event,
    ended_without_reason,
    endless_line,
    faulty,
    no_http,
    one_too_many,
    reset,
    sends,
    sends_raw,
    short,
    silence,
    status,
    telling,
    which,
)
from tests.openai.server import Ask, Script, Server, Wire, error_body
from tests.openai.worlds import outcome, prompt_of, served, workload

KEY = "sk-of-the-test"

CASES: dict[str, tuple[Script, Fault, str]] = {
    "429": (
        status(429, error_body("later"), Retry_After="17"),
        Fault.RATE_LIMITED,
        "429 Too Many Requests: Retry-After: 17; later",
    ),
    "429 without a word": (status(429), Fault.RATE_LIMITED, "429 Too Many Requests"),
    "400": (status(400, error_body("too long")), Fault.REJECTED, "400 Bad Request: too long"),
    "404, in FastAPI's words": (status(404, b'{"detail": "Not Found"}'), Fault.REJECTED, "404 Not Found: Not Found"),
    "a redirect": (status(302, Location="http://x/"), Fault.REJECTED, "302 Found to: http://x/"),
    "500": (status(500, b"it\nbroke"), Fault.SERVER_ERROR, "500 Internal Server Error: it broke"),
    "503": (
        status(503, Retry_After="soon"),
        Fault.SERVER_ERROR,
        "503 Service Unavailable: Retry-After: soon",
    ),
    "an unheard of status": (status(599), Fault.SERVER_ERROR, "599"),
    "204": (status(204), Fault.GARBAGE, "204 No Content"),
    "an error in the stream": (
        sends(error_body("engine died"), after=2),
        Fault.SERVER_ERROR,
        "an error in the stream: engine died; 2 of 7 tokens had come",
    ),
    "cut before anything": (cut, Fault.CUT, "the connection ended before the answer did"),
    "cut after two tokens": (
        begun(2, cut),
        Fault.CUT,
        "the connection ended before the answer did; 2 of 7 tokens had come",
    ),
    "reset, which may take what had come with it": (begun(2, reset), Fault.CUT, "*"),
    "cut within an event": (
        begun(1, cut_within_an_event),
        Fault.CUT,
        "the connection ended before the answer did; 1 of 7 tokens had come",
    ),
    "ended in good order, and early": (
        begun(3, ended_without_reason),
        Fault.CUT,
        "the stream ended before the answer did; 3 of 7 tokens had come",
    ),
    "no HTTP": (no_http, Fault.GARBAGE, "not HTTP*"),
    "no stream": (sends_raw(b'{"a": 3}'), Fault.GARBAGE, 'the answer is no stream of events: {"a": 3}'),
    "a page": (sends_raw(b"<html>\n", "text/html"), Fault.GARBAGE, "a line that is no server-sent event: <html>"),
    "nothing": (sends_raw(b""), Fault.GARBAGE, "the answer is no stream of events"),
    "no JSON": (sends(b"{oops", after=1), Fault.GARBAGE, "not JSON: {oops; 1 of 7 tokens had come"),
    "NaN": (sends(b'{"choices": [{"text": "a", "p": NaN}]}'), Fault.GARBAGE, "not JSON*"),
    "no UTF-8": (sends(b'{"choices": "\xff\xfe"}'), Fault.GARBAGE, "not JSON*"),
    "nested without end": (sends(b"[" * 200_000), Fault.GARBAGE, "not JSON*..."),
    "of another shape": (sends(b'{"choices": {"text": "a"}}'), Fault.GARBAGE, "choices is not a list of one"),
    "a line without end": (endless_line, Fault.GARBAGE, "a line of more than 1,048,576 bytes"),
    "a token short": (short, Fault.SHORT, "the server ended it, finish_reason: stop; 6 of 7 tokens had come"),
    "a token too many": (one_too_many, Fault.MISCOUNTED, "8 tokens came, 7 were asked for"),
    "a usage of fewer": (telling(0, -1), Fault.MISCOUNTED, "the server counts 6 tokens, 7 came*"),
    "a usage of a longer prompt": (telling(2, 0), Fault.MISCOUNTED, "the server counts 6 prompt tokens, not 4*"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_ends_its_request_and_no_other(tmp_path: Path, name: str) -> None:
    script, fault, detail = CASES[name]
    with Server(faulty({1: script}), probed=correct()) as server:
        found = served(server, tmp_path, requests=4)
    assert found.statuses == ["finished", "failed", "finished", "finished"]
    kind, _, told = found.reasons[1].partition(": ")
    assert kind == fault.value
    begin, star, end = detail.partition("*")
    assert told.startswith(begin)
    assert told.endswith(end) if star else told == detail
    assert found.breaches == []


def test_no_byte_for_too_long(tmp_path: Path) -> None:
    with Server(faulty({0: silence, 1: begun(2, silence)}), probed=correct()) as server:
        found = served(server, tmp_path, requests=3, silence_timeout_s=0.3)
    assert found.statuses == ["failed", "failed", "finished"]
    assert found.reasons == {
        0: "silence: no byte for 0.3 s",
        1: "silence: no byte for 0.3 s; 2 of 7 tokens had come",
    }


def test_alive_and_never_done(tmp_path: Path) -> None:
    """Every byte ends the silence; only the limit on the whole ends this."""
    with Server(faulty({1: begun(2, comments)}), probed=correct()) as server:
        found = served(server, tmp_path, requests=3, silence_timeout_s=5, request_timeout_s=0.5)
    assert found.statuses == ["finished", "failed", "finished"]
    assert found.reasons == {1: "slow: not done within 0.5 s; 2 of 7 tokens had come"}


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    """The server goes away after the first answer."""

    async def once(ask: Ask, wire: Wire) -> None:
        await correct()(ask, wire)
        if ask.number == 0:
            server.leave()

    with Server(once) as server:
        found = served(server, tmp_path, requests=2, gap_s=0.5)
    assert found.statuses == ["finished", "failed"]
    assert found.reasons[1] == "unreachable: no connection: Connection refused"


def test_a_connection_that_is_not_accepted_in_time(tmp_path: Path) -> None:
    """A listener whose queue is full answers no handshake."""
    with Server(correct()) as server, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            server.port = port
            from tests.openai.test_probe import complaint

            assert "no connection within 0.3 s" in complaint(server, tmp_path, connect_timeout_s=0.3)
        finally:
            for each in waiting:
                each.close()


class Paper(Wire):
    """What goes over a wire, on paper: all of it, and without HTTP's frames."""

    def __init__(self) -> None:
        self.requests = 1
        self.framed = self.events = b""

    async def raw(self, data: bytes) -> None:
        self.framed += data

    async def piece(self, data: bytes) -> None:
        self.events += data
        await super().piece(data)


def whole_answer() -> Paper:
    paper = Paper()
    options = {"return_token_ids": True, "stream_options": {"include_usage": True}}
    body = {"model": "m", "prompt": prompt_of(0), "max_tokens": 5, **options}
    asyncio.run(correct()(Ask("completions", {}, body, 0), paper))
    return paper


def spoilt(data: bytearray, draw: random.Random) -> bytes:
    """Some bytes lost, doubled, changed or put in."""
    for _ in range(draw.randint(1, 3)):
        place, end = draw.randrange(len(data)), draw.randint(1, 30)
        match draw.randrange(4):
            case 0:
                del data[place : place + end]
            case 1:
                data[place:place] = data[place : place + end]
            case 2:
                data[place] = draw.randrange(256)
            case _:
                data[place:place] = draw.randbytes(end)
    return bytes(data)


def spoilt_answer(seed: int, right: Paper) -> Script:
    """Anywhere: in the status and the frames, or in frames that are right, in the events and their JSON."""
    draw = random.Random(seed)
    framed = spoilt(bytearray(right.framed), draw)
    events = spoilt(bytearray(right.events), draw)
    cuts = [0, *sorted(draw.randrange(len(events)) for _ in range(seed % 7)), len(events)]

    async def script(ask: Ask, wire: Wire) -> None:
        if seed % 2:
            await wire.raw(framed)
        else:
            await wire.open_stream()
            for begin, end in pairwise(cuts):
                if begin < end:
                    await wire.piece(events[begin:end])
            await wire.raw(b"0\r\n\r\n")
        wire.hang_up()

    return script


def test_whatever_is_wrong_with_the_bytes_it_is_a_fault_or_an_answer(tmp_path: Path) -> None:
    count, right = 120, whole_answer()
    scripts = {number: spoilt_answer(number, right) for number in range(count)}
    prompts = {number: prompt_of(number) for number in range(count)}
    work = workload(*[(0.005 * number, prompts[number], 5) for number in range(count)])
    with Server(faulty(scripts), probed=correct()) as server:
        found = outcome(server, tmp_path, work, prompts, silence_timeout_s=5)
    assert found.breaches == []
    assert {reason.partition(": ")[0] for reason in found.reasons.values()} <= set(Fault)
    assert found.statuses.count("failed") > count / 2
    assert "finished" in found.statuses, "some of it does not matter"
    assert all(len(found.answers[row["request_id"]]) == 5 for row in found.rows if row["status"] == "finished")


# --- trying again -----------------------------------------------------------------------------------------------------


def twice_busy(code: int, **headers: str) -> Script:
    """The first two tries of every request are turned away."""
    tries: Counter[int] = Counter()

    async def script(ask: Ask, wire: Wire) -> None:
        tries[which(ask)] += 1
        await (status(code, b"", **headers) if tries[which(ask)] <= 2 else correct())(ask, wire)

    return script


@pytest.mark.parametrize(("code", "headers"), [(429, {"Retry_After": "0.05"}), (503, {"Retry_After": "0"}), (429, {})])
def test_a_retry_that_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.02)
    with Server(twice_busy(code, **headers), probed=correct()) as server:
        found = served(server, tmp_path, requests=3, retries=2)
    assert found.statuses == ["finished"] * 3
    assert len(server.serving) == 9
    assert (found.resolved["retries_allowed"], found.resolved["retries"]) == (2, 6)
    if code == 429:
        waited_s = 0.1 if headers else 0.06
        assert all(row["first_token_s"] - row["arrival_s"] >= waited_s for row in found.rows), "it counts from arrival"


def test_no_more_retries_than_allowed(tmp_path: Path) -> None:
    with Server(twice_busy(429, Retry_After="0"), probed=correct()) as server:
        found = served(server, tmp_path, requests=2, retries=1)
    assert found.statuses == ["failed"] * 2
    assert found.reasons[0] == "rate_limited: 429 Too Many Requests: Retry-After: 0"
    assert len(server.serving) == 4


@pytest.mark.parametrize("told", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "1e400"])
def test_a_wait_that_is_too_long_is_not_begun(tmp_path: Path, told: str) -> None:
    with Server(twice_busy(429, Retry_After=told), probed=correct()) as server:
        found = served(server, tmp_path, retries=5, request_timeout_s=20)
    if told == "1e400":  # no time: as if nothing had been told
        assert found.statuses == ["finished"]
    else:
        assert found.reasons[0] == f"rate_limited: 429 Too Many Requests: Retry-After: {told}"
        assert len(server.serving) == 1


@pytest.mark.parametrize("script", [status(400), status(500), begun(1, cut)])
def test_what_may_have_been_served_is_not_tried_again(tmp_path: Path, script: Script) -> None:
    with Server(faulty({0: script}), probed=correct()) as server:
        found = served(server, tmp_path, retries=3)
    assert found.statuses == ["failed"]
    assert len(server.serving) == 1


# --- the key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        status(403, error_body(f"Bearer {KEY} may not")),
        status(429, f"{'x' * 195}{KEY}".encode(), Retry_After=KEY),
        status(302, Location=f"http://x/?{KEY}"),
        sends(error_body(f"{KEY} is out of credit")),
        sends(KEY.encode()),
        sends_raw(f"{KEY}: 3\n".encode()),
        sends(f'{{"choices": [{{"text": "", "token_ids": [], "finish_reason": "{KEY}"}}]}}'.encode(), after=1),
    ],
)
def test_a_key_that_the_server_echoes_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server(faulty({0: script}), probed=correct(), key=KEY) as server:
        found = served(server, tmp_path)
    assert found.statuses == ["failed"]
    assert KEY not in str(found)
    assert KEY[:8] not in str(found)


def test_every_fault_has_its_meaning() -> None:
    assert set(MEANINGS) == set(Fault)
    shown = {fault for _, fault, _ in CASES.values()}
    assert set(Fault) - shown == {Fault.UNREACHABLE, Fault.SILENCE, Fault.SLOW}, "which have tests of their own"
