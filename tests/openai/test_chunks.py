"""One event of a stream: what is read from the shapes that servers send, and that everything else is garbage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.openai.chunks import Chunk, Usage, error_words, read_chunk, read_object
from engines.openai.faults import Fault, FaultError

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a", "length"])
FIELDS = ("choices", "usage", "error", "object", "text", "delta", "token_ids", "finish_reason", "prompt_tokens")


def outcome(attempt: Callable[[], object]) -> object:
    """The type of what it gives, or the fault; any other exception is the test's failure."""
    try:
        return type(attempt())
    except FaultError as error:
        return error.fault


def read(**fields: Any) -> Chunk:
    return read_chunk(json.dumps(fields).encode())


def choice(**fields: Any) -> Chunk:
    return read(choices=[fields])


def test_a_completion_of_vllm() -> None:
    found = choice(index=0, text="", finish_reason=None, prompt_token_ids=[1, 2], token_ids=[7152])
    assert found == Chunk(token_ids=[7152])


def test_text_and_the_reason_why_it_ended() -> None:
    assert choice(text=" a", finish_reason="length") == Chunk(has_text=True, finish_reason="length")


@pytest.mark.parametrize(
    ("delta", "has_text"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"content": "a"}, True),
        ({"reasoning_content": "a", "content": None}, True),
        ({"reasoning": "a"}, True),
        ({}, False),
        (None, False),
    ],
)
def test_the_text_of_a_chat(delta: object, has_text: bool) -> None:
    assert choice(delta=delta).has_text == has_text


def test_usage_comes_alone_or_beside_a_choice() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert read(choices=[], usage=usage) == read(usage=usage) == Chunk(usage=Usage(3, 5))
    assert read(choices=[{"text": "a"}], usage=usage) == Chunk(has_text=True, usage=Usage(3, 5))
    assert read(choices=[{"text": "a"}], usage=None) == Chunk(has_text=True)


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"not json",
        b"[1]",
        b"null",
        b"3",
        b'"text"',
        b"{}",
        b'{"choices": 3}',
        b'{"choices": [{}, {}]}',
        b'{"choices": [3]}',
        b'{"choices": [{"text": 3}]}',
        b'{"choices": [{"delta": "a"}]}',
        b'{"choices": [{"delta": {"content": 3}}]}',
        b'{"choices": [{"text": "a", "finish_reason": 3}]}',
        b'{"choices": [{"text": "a", "token_ids": 3}]}',
        b'{"choices": [{"text": "a", "token_ids": [1.0]}]}',
        b'{"choices": [{"text": "a", "token_ids": [true]}]}',
        b'{"choices": [{"text": "a", "token_ids": [-1]}]}',
        b'{"choices": [{"text": "a", "token_ids": [4294967296]}]}',
        b'{"choices": [], "usage": 3}',
        b'{"choices": [], "usage": {"prompt_tokens": 3}}',
        b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": -1}}',
        b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1.5}}',
        b'{"choices": [{"text": "a", "logprobs": NaN}]}',
        b'{"choices": [{"text": "a", "logprobs": -Infinity}]}',
        b'{"choices": [{"text": "\xff\xfe"}]}',
        b'{"choices": ' + b"[" * 100_000,
        b'{"choices": [{"token_ids": [' + b"9" * 10_000 + b"]}]}",
    ],
)
def test_everything_else_is_garbage(event: bytes) -> None:
    with pytest.raises(FaultError) as raised:
        read_chunk(event)
    assert raised.value.fault is Fault.GARBAGE


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no room", "code": 503}},
        {"error": "no room"},
        {"object": "error", "message": "no room"},
    ],
)
def test_an_error_in_the_stream_is_the_servers(body: dict[str, Any]) -> None:
    with pytest.raises(FaultError) as raised:
        read_chunk(json.dumps(body).encode())
    assert (raised.value.fault, raised.value.words) == (Fault.SERVER_ERROR, "no room")


def test_an_error_without_words_is_shown_whole() -> None:
    assert error_words({"error": {"code": 7}}) == '{"code": 7}'
    assert error_words({"error": None, "choices": []}) is None


ANY = PLAIN | st.lists(PLAIN, max_size=3)
NESTED = st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=4)


@given(st.dictionaries(st.sampled_from(FIELDS), ANY | NESTED | st.lists(NESTED, max_size=2), max_size=4))
def test_whatever_comes_is_a_chunk_or_a_fault(body: dict[str, Any]) -> None:
    assert outcome(lambda: read_chunk(json.dumps(body).encode())) in (Chunk, Fault.GARBAGE, Fault.SERVER_ERROR)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_garbage(text: bytes) -> None:
    assert outcome(lambda: read_object(text)) in (dict, Fault.GARBAGE)
