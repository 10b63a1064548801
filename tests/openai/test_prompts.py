"""Prompts have exactly as many tokens as were asked for, in every form, as the served model's tokenizer counts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.openai.errors import EndpointError
from engines.openai.prompts import ChatPrompts, TextPrompts, TokenIdPrompts, load_tokenizer, writer_for
from tests.openai.tokenizer_folder import make_tokenizer

IDS = st.lists(st.integers(0, 511), min_size=24, max_size=120)
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def known(tokenizer: Path) -> Any:
    return load_tokenizer(str(tokenizer))


def test_ids_are_sent_as_they_are() -> None:
    prompt = TokenIdPrompts().write([5, 6, 7])
    assert (prompt.fields, prompt.tokens) == ({"prompt": [5, 6, 7]}, 3)


@FEW
@given(ids=IDS)
def test_a_text_counts_as_many_tokens_its_bos_included(tokenizer: Path, known: Any, ids: list[int]) -> None:
    prompt = TextPrompts(str(tokenizer)).write(ids)
    counted = known(prompt.fields["prompt"])["input_ids"]
    assert len(counted) == prompt.tokens == len(ids)
    assert counted[0] == known.bos_token_id


@FEW
@given(ids=IDS)
def test_a_chat_counts_as_many_its_template_included(tokenizer: Path, known: Any, ids: list[int]) -> None:
    prompt = ChatPrompts(str(tokenizer)).write(ids)
    text = known.apply_chat_template(prompt.fields["messages"], add_generation_prompt=True, tokenize=False)
    assert text.endswith("<|assistant|>\n")
    assert len(known(text, add_special_tokens=False)["input_ids"]) == prompt.tokens == len(ids)


def test_the_text_is_that_of_the_tokens(tokenizer: Path, known: Any) -> None:
    sentence = "Every engine is held to the same envelope, and checked."
    ids = known(sentence)["input_ids"]
    assert TextPrompts(str(tokenizer)).write(ids).fields == {"prompt": sentence}


def test_a_prompt_shorter_than_its_template_is_the_nearest_and_says_so(tokenizer: Path) -> None:
    prompt = ChatPrompts(str(tokenizer)).write([40, 41])
    assert prompt.tokens > 2


def test_the_form_decides_over_the_path(tokenizer: Path) -> None:
    paths = {form: writer_for(form, str(tokenizer)).path for form in ("token_ids", "text", "chat")}
    assert paths == {"token_ids": "completions", "text": "completions", "chat": "chat/completions"}


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"tokenizer: .* cannot be loaded"):
        TextPrompts(str(tmp_path))
    with pytest.raises(EndpointError, match="no chat template"):
        ChatPrompts(str(make_tokenizer(tmp_path / "plain", template=None)))
