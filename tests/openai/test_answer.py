"""Tokens counted in three ways, against what was asked and what the server says; whatever disagrees is a fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.openai.answer import Answer, Counting, Expected
from engines.openai.chunks import DONE
from engines.openai.faults import Fault, FaultError
from engines.openai.sse import EventParser

ALL = tuple(Counting)


class Heard:
    """An answer, and what it handed over."""

    def __init__(self, counting: Counting, asked: int = 4, prompt: int = 3, may_stop: bool = False) -> None:
        self.tokens: list[int] = []
        self.is_complete = False
        self.answer = Answer(Expected(prompt, asked, may_stop), counting, self._give)

    def _give(self, tokens: Sequence[int], are_all: bool) -> None:
        assert not self.is_complete
        self.tokens += tokens
        self.is_complete = are_all

    def chunk(self, ids: list[int] | None = None, text: str = "", reason: str | None = None, **more: Any) -> None:
        choice = {"text": text, "token_ids": ids, "finish_reason": reason}
        assert not self.answer.take(json.dumps({"choices": [choice], **more}).encode())

    def usage(self, prompt: int, tokens: int) -> None:
        self.answer.take(json.dumps({"choices": [], **told(prompt, tokens)}).encode())

    def done(self) -> None:
        assert self.answer.take(DONE)

    def ended_with(self, prompt: int, tokens: int) -> None:
        self.chunk(reason="length")
        self.usage(prompt, tokens)
        self.done()


def told(prompt: int, tokens: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": tokens}}


def fault(heard: Heard, action: str = "done") -> Fault:
    with pytest.raises(FaultError) as raised:
        heard.answer.close() if action == "close" else heard.done()
    assert not heard.is_complete
    return raised.value.fault


def test_ids_are_counted_however_they_are_chunked() -> None:
    heard = Heard(Counting.IDS)
    heard.chunk([5])
    heard.chunk([], text="")
    heard.chunk([6, 7, 8], reason="length")
    heard.usage(3, 4)
    heard.done()
    assert (heard.tokens, heard.is_complete) == ([5, 6, 7, 8], True)
    assert (heard.answer.tokens, heard.answer.chunks) == (4, 2)


def test_the_running_usage_counts_what_a_chunk_holds() -> None:
    heard = Heard(Counting.USAGE)
    heard.chunk(text="a", **told(3, 1))
    assert heard.tokens == [0]
    heard.chunk(text="b", **told(3, 3))
    assert heard.tokens == [0] * 3
    heard.chunk(text="", reason="length", **told(3, 4))
    heard.usage(3, 4)
    heard.done()
    assert (heard.tokens, heard.is_complete) == ([0] * 4, True)


def test_texts_are_settled_by_the_usage_at_the_end() -> None:
    heard = Heard(Counting.TEXTS)
    heard.chunk(text="")
    heard.chunk(text="two tokens")
    heard.chunk(text="one", reason="length")
    assert heard.tokens == [0, 0]
    heard.usage(3, 4)
    heard.done()
    assert (heard.tokens, heard.is_complete) == ([0] * 4, True)


def test_without_any_usage_the_length_is_the_servers_word() -> None:
    heard = Heard(Counting.TEXTS)
    heard.chunk(text="a", reason="length")
    heard.done()
    assert (len(heard.tokens), heard.is_complete) == (4, True)
    stopped = Heard(Counting.TEXTS)
    stopped.chunk(text="a", reason="stop")
    assert fault(stopped) is Fault.SHORT


def test_more_chunks_than_tokens_are_found_out() -> None:
    heard = Heard(Counting.TEXTS, asked=2)
    for text in "abc":
        heard.chunk(text=text, reason="length")
    assert len(heard.tokens) == 2, "never more than were asked for"
    heard.usage(3, 1)
    assert fault(heard) in (Fault.SHORT, Fault.MISCOUNTED)


@pytest.mark.parametrize("counting", ALL)
def test_an_answer_with_fewer_tokens_is_no_answer(counting: Counting) -> None:
    heard = Heard(counting)
    heard.chunk([5] if counting is Counting.IDS else None, text="a", reason="stop", **told(3, 1))
    assert fault(heard) is Fault.SHORT


def test_with_stop_ids_it_may_be_shorter() -> None:
    heard = Heard(Counting.IDS, may_stop=True)
    heard.chunk([5, 2], reason="stop")
    heard.done()
    assert (heard.tokens, heard.is_complete) == ([5, 2], True)
    cut_off = Heard(Counting.IDS, may_stop=True)
    cut_off.chunk([5], reason="length")
    assert fault(cut_off) is Fault.SHORT


@pytest.mark.parametrize("counting", ALL)
@pytest.mark.parametrize(("prompt", "tokens"), [(4, 4), (2, 4), (3, 5), (3, 9_000_000_000)])
def test_a_count_of_the_servers_that_is_not_ours(counting: Counting, prompt: int, tokens: int) -> None:
    heard = Heard(counting)
    for number in range(1, 5):
        heard.chunk([number] if counting is Counting.IDS else None, text="a", **told(3, number))
    with pytest.raises(FaultError, match="miscounted"):
        heard.ended_with(prompt, tokens)
    assert not heard.is_complete


def test_more_ids_than_were_asked_for() -> None:
    heard = Heard(Counting.IDS)
    with pytest.raises(FaultError, match="miscounted"):
        heard.chunk([1, 2, 3, 4, 5])
    assert heard.tokens == []


def test_a_usage_that_runs_backwards() -> None:
    heard = Heard(Counting.USAGE)
    heard.chunk(text="a", **told(3, 2))
    with pytest.raises(FaultError, match="miscounted"):
        heard.chunk(text="b", **told(3, 1))


def test_text_without_its_ids() -> None:
    heard = Heard(Counting.IDS)
    with pytest.raises(FaultError, match="miscounted"):
        heard.chunk(None, text="a")


def test_a_stream_that_ends_says_why_or_is_cut() -> None:
    heard = Heard(Counting.IDS)
    heard.chunk([1, 2])
    assert fault(heard, "close") is Fault.CUT
    heard.chunk([3, 4], reason="length")
    heard.answer.close()
    assert heard.is_complete


def test_how_far_it_came_is_told() -> None:
    heard = Heard(Counting.IDS)
    assert heard.answer.account("it broke") == "it broke"
    heard.chunk([1, 2])
    assert heard.answer.account("it broke") == "it broke; 2 of 4 tokens had come"


PIECES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"\n\n", b"data: ", b"data: [DONE]\n\n", b'data: {"choices":[{"text":"a","token_ids":[1]}]}\n\n']),
    st.sampled_from([b'data: {"choices":[{"text":"","token_ids":[],"finish_reason":"length"}]}\n\n', b": x\n", b"{}"]),
    st.sampled_from([b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n', b"\r"]),
)


@given(st.sampled_from(ALL), st.lists(PIECES, max_size=12))
def test_any_stream_is_answered_in_full_or_a_fault(counting: Counting, pieces: list[bytes]) -> None:
    heard, parser = Heard(counting, asked=2), EventParser()
    try:
        for piece in pieces:
            for event in parser.feed(piece):
                if heard.answer.take(event):
                    assert heard.is_complete
                    assert len(heard.tokens) == 2
                    return
        heard.answer.close()
    except FaultError:
        assert len(heard.tokens) <= 2
        assert not heard.is_complete
        return
    assert heard.is_complete
    assert len(heard.tokens) == 2
