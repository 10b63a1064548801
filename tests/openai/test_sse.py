"""The parser of server-sent events: it does not matter how the bytes were cut, and what is no event is garbage."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.openai import sse
from engines.openai.faults import Fault, FaultError
from engines.openai.sse import EventParser

LINES = st.one_of(
    st.binary(max_size=12).map(lambda text: b"data:" + text.translate(None, b"\r\n")),
    st.sampled_from([b"data: x", b"data", b"data:", b"", b"", b": comment", b"event: token", b"id: 3", b"retry: 9"]),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda lines: b"".join(line + end for line, end in lines))


def by_the_standard(stream: bytes) -> list[bytes]:
    """All at once and slowly: lines, then blocks between empty lines, then what their data fields hold."""
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events, data = [], list[bytes]()
    for line in lines:
        name, _, value = line.partition(b":")
        if line == b"" and data:
            events.append(b"\n".join(data))
            data = []
        elif name == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
    return events


def parsed(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@given(STREAMS, st.lists(st.integers(0, 400), max_size=20), st.booleans())
def test_where_the_bytes_are_cut_does_not_matter(stream: bytes, cuts: list[int], has_mark: bool) -> None:
    stream = b"\xef\xbb\xbf" * has_mark + stream
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[begin:end] for begin, end in pairwise(places)]
    # A carriage return at the very end may still be half of a line's end, and ends the line already.
    assert parsed(*pieces) == parsed(stream) == by_the_standard(stream)


@given(STREAMS)
def test_byte_by_byte(stream: bytes) -> None:
    assert parsed(*(stream[place : place + 1] for place in range(len(stream)))) == by_the_standard(stream)


def test_an_event_comes_with_its_empty_line_and_not_before() -> None:
    parser = EventParser()
    assert parser.feed(b'data: {"a"') == []
    assert parser.feed(b": 1}\n") == []
    assert parser.feed(b"\n") == [b'{"a": 1}']


def test_several_data_lines_are_one_event() -> None:
    assert parsed(b"data: a\ndata:b\n\ndata:  c\n\n") == [b"a\nb", b" c"]


@pytest.mark.parametrize("line", [b"<html>", b"HTTP/1.1 200 OK", b'{"choices": []}', b"\xff\xfe", b"datum: x"])
def test_a_line_of_another_protocol_is_garbage(line: bytes) -> None:
    with pytest.raises(FaultError) as raised:
        parsed(line + b"\n")
    assert raised.value.fault is Fault.GARBAGE


@pytest.mark.parametrize("piece", [b"data: " + b"a" * 99, b"data: " + b"a" * 49 + b"\n", b"a" * 99])
def test_lines_and_events_without_an_end_cost_no_memory(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(sse, "MOST_EVENT_BYTES", 1000)
    with pytest.raises(FaultError, match="garbage") as raised:
        parsed(*[piece] * 100)
    assert "more than 1,000 bytes" in raised.value.detail
