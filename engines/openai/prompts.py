"""A prompt of so many tokens in the form in which the endpoint gets it: token ids, text, or a chat of one message.

Ids are exact and what a server counts is what was sent. Text is tokenised anew by the server, so it is written such
that the tokenizer counts as many tokens as the workload asked for, the template of a chat included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from engines.openai.errors import EndpointError

PromptForm = Literal["token_ids", "text", "chat"]
ATTEMPTS = 24  # to find a text of the length wanted; most take two or three
FILLERS = (" a", " the", "\n", "1", ".")  # one token each in most vocabularies, as long as they do not merge


@dataclass(frozen=True, slots=True)
class Prompt:
    """`fields` of the request; `tokens` as counted here."""

    fields: dict[str, object]
    tokens: int


class PromptWriter(Protocol):
    path: str  # of the endpoint that takes this form

    def write(self, token_ids: Sequence[int]) -> Prompt: ...


class TokenIdPrompts:
    path = "completions"

    def write(self, token_ids: Sequence[int]) -> Prompt:
        return Prompt({"prompt": list(token_ids)}, len(token_ids))


class TextPrompts:
    path = "completions"

    def __init__(self, folder: str) -> None:
        self._tokenizer = load_tokenizer(folder)

    def write(self, token_ids: Sequence[int]) -> Prompt:
        text, tokens = text_of_length(self._tokenizer, token_ids, len(token_ids), self._count)
        return Prompt({"prompt": text}, tokens)

    def _count(self, text: str) -> int:
        """With the tokens that a tokenizer puts before a text, as servers do it for /completions."""
        return len(self._tokenizer(text)["input_ids"])


class ChatPrompts:
    path = "chat/completions"

    def __init__(self, folder: str) -> None:
        self._tokenizer = load_tokenizer(folder)
        if not self._tokenizer.chat_template:
            raise EndpointError(f"tokenizer: {folder} has no chat template; set prompt: text or prompt: token_ids")

    def write(self, token_ids: Sequence[int]) -> Prompt:
        text, tokens = text_of_length(self._tokenizer, token_ids, len(token_ids), self._count)
        return Prompt({"messages": _messages(text)}, tokens)

    def _count(self, text: str) -> int:
        rendered = self._tokenizer.apply_chat_template(_messages(text), add_generation_prompt=True, tokenize=False)
        return len(self._tokenizer(rendered, add_special_tokens=False)["input_ids"])


def writer_for(form: PromptForm, tokenizer: str) -> PromptWriter:
    if form == "token_ids":
        return TokenIdPrompts()
    return TextPrompts(tokenizer) if form == "text" else ChatPrompts(tokenizer)


def load_tokenizer(folder: str) -> Any:
    """From local files only; code that comes with a tokenizer is not run."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a broken file makes of it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise EndpointError(f"tokenizer: {folder} cannot be loaded: {reason}") from None


def text_of_length(
    tokenizer: Any, token_ids: Sequence[int], wanted: int, count: Callable[[str], int]
) -> tuple[str, int]:
    """A text like these tokens that counts as `wanted`, or the nearest that was found, and its count.

    Decoding and encoding again merges and splits tokens, so the text is cut, or filled up, until it comes out right.
    """
    text = _decoded(tokenizer, token_ids)
    nearest = (text, count(text))
    for attempt in range(ATTEMPTS):
        tokens = count(text)
        if abs(tokens - wanted) < abs(nearest[1] - wanted):
            nearest = (text, tokens)
        if tokens == wanted:
            break
        if tokens > wanted:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            text = _decoded(tokenizer, ids[: max(0, len(ids) - (tokens - wanted))])
        else:
            text += FILLERS[attempt % len(FILLERS)] * (wanted - tokens)
    return nearest


def _decoded(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Without the replacement characters of broken UTF-8, each of which would come back as three tokens."""
    text: str = tokenizer.decode(token_ids, skip_special_tokens=True)
    return text.replace("\ufffd", "")


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
