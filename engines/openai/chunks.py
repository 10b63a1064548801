"""One event of a streamed answer, read strictly: what is there and not of the protocol's shape is garbage.

The shapes are those of /completions and /chat/completions, with vLLM's `token_ids`. Not here: whether the numbers add
up over the answer (answer.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from engines.openai.faults import Fault, FaultError

DONE = b"[DONE]"
# Where the text of a chat is: some servers keep what a model thinks aside, and it is made of tokens like the rest.
CHAT_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """`token_ids`: None where the server gives none."""

    token_ids: list[int] | None = None
    has_text: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None


def read_chunk(event: bytes) -> Chunk:
    body = read_object(event)
    _raise_error_of(body)
    usage = _usage(body.get("usage"))
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) > 1:
        if choices is None and usage is not None:
            return Chunk(usage=usage)
        _garbage("choices is not a list of one")
    if not choices:
        return Chunk(usage=usage)
    choice = choices[0]
    if not isinstance(choice, dict):
        _garbage("a choice is not an object")
    reason = choice.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        _garbage("finish_reason is not text")
    return Chunk(_token_ids(choice.get("token_ids")), _has_text(choice), reason, usage)


def read_object(text: bytes) -> dict[str, Any]:
    """Strict JSON: NaN, bytes that are no UTF-8 and nesting without end are garbage as well."""
    try:
        body = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        _garbage("not JSON", text)
    if not isinstance(body, dict):
        _garbage("JSON that is not an object", text)
    return body


def error_words(body: dict[str, Any]) -> str | None:
    """What an error says, in any of the shapes that servers give it; None where the object is no error."""
    error = body.get("error")
    if error is None and body.get("object") == "error":
        error = body
    if not error:
        return None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else json.dumps(error)


def _raise_error_of(body: dict[str, Any]) -> None:
    words = error_words(body)
    if words is not None:
        raise FaultError(Fault.SERVER_ERROR, "an error in the stream", words)


def _has_text(choice: dict[str, Any]) -> bool:
    text = choice.get("text")
    if text is None and "delta" in choice:
        delta = choice["delta"]
        if delta is None:
            return False
        if not isinstance(delta, dict):
            _garbage("delta is not an object")
        texts = [delta.get(name) for name in CHAT_TEXTS]
    else:
        texts = [text]
    if not all(text is None or isinstance(text, str) for text in texts):
        _garbage("a text is not text")
    return any(texts)


def _token_ids(found: object) -> list[int] | None:
    if found is None:
        return None
    # bool is an int, and a token beyond 32 bits is none of any model.
    if not isinstance(found, list) or not all(type(token) is int and 0 <= token < 1 << 32 for token in found):
        _garbage("token_ids is not a list of token ids")
    return found


def _usage(found: object) -> Usage | None:
    if found is None:
        return None
    counts = [found.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(found, dict) else [None]
    if not all(type(count) is int and count >= 0 for count in counts):
        _garbage("usage holds no counts of tokens")
    return Usage(*counts)


def _garbage(what: str, words: bytes = b"") -> NoReturn:
    raise FaultError(Fault.GARBAGE, what, words.decode(errors="replace"))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
