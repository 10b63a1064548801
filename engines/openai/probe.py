"""Finds out, with a few tiny requests before serving, which model the endpoint has and what it takes and gives.

First everything that is wanted at once; only a server that refuses that is asked field by field. What is silently
ignored shows in the answer, or later in requests that end early, which are failures then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, NoReturn

from engines.openai.answer import Counting
from engines.openai.chunks import DONE, Chunk, Usage, read_chunk
from engines.openai.client import Client
from engines.openai.dialect import LENGTH_FIELDS, RUNNING_USAGE, SECOND_BEST, WANTED, Dialect
from engines.openai.errors import EndpointError
from engines.openai.faults import Fault, FaultError
from engines.openai.prompts import Prompt, PromptWriter
from engines.openai.secret import Secret

PROBE_TOKENS = 8
PROBE_PROMPT = tuple(range(3, 3 + 16))  # ids that every vocabulary has
MOST_LISTED = 8
REFUSES_FIELDS = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


@dataclass(frozen=True, slots=True)
class Findings:
    dialect: Dialect
    usage_is_told: bool
    tokens_per_chunk: float
    model: str  # in words: the server may call it anything
    server: str
    longest_request_tokens: int | None


@dataclass(slots=True)
class _Sample:
    """The answer to one probe: a listener that keeps everything and judges nothing."""

    chunks: list[Chunk]
    finished: bool = False

    def take(self, event: bytes) -> bool:
        if event == DONE:
            self.finished = True
            return True
        self.chunks.append(read_chunk(event))
        return False

    def close(self) -> None:
        self.finished = any(chunk.finish_reason for chunk in self.chunks)

    @property
    def usage(self) -> Usage | None:
        return next((chunk.usage for chunk in reversed(self.chunks) if chunk.usage), None)

    @property
    def token_ids(self) -> int:
        return sum(len(chunk.token_ids or ()) for chunk in self.chunks)

    @property
    def with_tokens(self) -> list[Chunk]:
        return [chunk for chunk in self.chunks if chunk.token_ids or chunk.has_text]


class Probe:
    def __init__(self, client: Client, base_url: str, secret: Secret, writer: PromptWriter) -> None:
        self._client = client
        self._base_url = base_url
        self._secret = secret
        self._writer = writer

    async def run(self, served_model: str, extra: Mapping[str, Any]) -> Findings:
        """EndpointError with one line where it cannot be used."""
        listed, server = await self._models(served_model)
        model = served_model or self._only(listed)
        if listed and model not in listed:
            self._give_up(f'served_model: "{model}" is not there; there is {self._names(listed)}')
        prompt = self._writer.write(PROBE_PROMPT)
        dialect, sample = await self._spoken(Dialect(self._writer.path, model, extra=extra), prompt)
        dialect, sample = await self._counted(dialect, sample, prompt)
        chunks = len(sample.with_tokens)
        usage = sample.usage
        if usage is not None:
            dialect = replace(dialect, prompt_tokens_added=usage.prompt_tokens - prompt.tokens)
        tokens = sample.token_ids or (usage.completion_tokens if usage else chunks)
        return Findings(
            dialect=dialect,
            usage_is_told=usage is not None,
            tokens_per_chunk=tokens / chunks if chunks else 0.0,
            model=self._secret.quote(model),
            server=await self._version(server),
            longest_request_tokens=_context(listed.get(model)),
        )

    async def _models(self, served_model: str) -> tuple[dict[str, Any], str]:
        """What is served, by id. A server without a list will do where the model is named."""
        try:
            body, server = await self._client.get(f"{self._base_url}/models")
        except FaultError as error:
            if served_model and error.status == HTTPStatus.NOT_FOUND:
                return {}, ""
            self._give_up(f"GET /models: {self._secret.account(error)}{_advice(error, self._secret.name)}")
        entries = body.get("data")
        if not isinstance(entries, list):
            self._give_up("GET /models answered with no list of models; give served_model")
        listed = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        return {entry["id"]: entry for entry in listed}, server

    def _only(self, listed: Mapping[str, Any]) -> str:
        if len(listed) != 1:
            self._give_up(f"served_model: give one; there is {self._names(listed)}")
        return next(iter(listed))

    async def _spoken(self, dialect: Dialect, prompt: Prompt) -> tuple[Dialect, _Sample]:
        """The most that the server takes, and its answer to it."""
        sample = await self._tried(dialect, prompt)
        if sample is not None:
            return dialect, sample
        dialect = await self._least(replace(dialect, takes=()), prompt)
        for name in WANTED:
            for candidate in filter(None, (name, SECOND_BEST.get(name))):
                richer = replace(dialect, takes=(*dialect.takes, candidate))
                if await self._tried(richer, prompt) is not None:
                    dialect = richer
                    break
        sample = await self._tried(dialect, prompt)
        if sample is None:
            self._give_up("takes a request once and refuses it the next time")
        return dialect, sample

    async def _least(self, dialect: Dialect, prompt: Prompt) -> Dialect:
        errors = []
        for name in LENGTH_FIELDS:
            candidate = replace(dialect, length_field=name)
            try:
                await self._answer(candidate, prompt)
                return candidate
            except FaultError as error:
                errors.append(error)
        line = f"{self._secret.account(errors[0])}{_advice(errors[0], self._secret.name)}"
        return self._give_up(f"refuses the plainest request: {line}")

    async def _tried(self, dialect: Dialect, prompt: Prompt) -> _Sample | None:
        """None where the server does not take it; every other fault is the end."""
        try:
            return await self._answer(dialect, prompt)
        except FaultError as error:
            if error.status in REFUSES_FIELDS:
                return None
            line = f"{error.fault}: {self._secret.account(error)}{_advice(error, self._secret.name)}"
            self._give_up(f"cannot answer a first request: {line}")

    async def _answer(self, dialect: Dialect, prompt: Prompt) -> _Sample:
        sample = _Sample([])
        await self._client.stream(dialect.path, dialect.body(prompt, PROBE_TOKENS), sample)
        if not sample.finished or not sample.with_tokens:
            raise FaultError(Fault.CUT, "the stream ended without an answer")
        return sample

    async def _counted(self, dialect: Dialect, sample: _Sample, prompt: Prompt) -> tuple[Dialect, _Sample]:
        """How the tokens of a chunk can be counted; a server without token ids may count them itself as it goes."""
        if all(chunk.token_ids is not None for chunk in sample.with_tokens):
            return replace(dialect, counting=Counting.IDS), sample
        dialect = replace(dialect, takes=tuple(name for name in dialect.takes if name != "return_token_ids"))
        running = replace(dialect, takes=(*dialect.takes, RUNNING_USAGE))
        if "include_usage" in dialect.takes:
            found = await self._tried(running, prompt)
            if found is not None and all(chunk.usage for chunk in found.with_tokens):
                return replace(running, counting=Counting.USAGE), found
        return replace(dialect, counting=Counting.TEXTS), sample

    async def _version(self, server: str) -> str:
        """vLLM and its kin tell their version beside the API; nobody has to."""
        try:
            body, _ = await self._client.get(f"{self._base_url.removesuffix('/v1')}/version")
        except FaultError:
            body = {}
        version = body.get("version")
        return self._secret.quote(f"version {version}" if isinstance(version, str) else server)

    def _names(self, listed: Mapping[str, Any]) -> str:
        names = [f'"{self._secret.quote(name)}"' for name in list(listed)[:MOST_LISTED]]
        more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
        return f"{', '.join(names)}{more}" if names else "none"

    def _give_up(self, why: str) -> NoReturn:
        raise EndpointError(self._secret.scrub(f"{self._base_url}: {why}")) from None


def _context(entry: Any) -> int | None:
    """vLLM and SGLang say how long a request may be."""
    length = entry.get("max_model_len") if isinstance(entry, dict) else None
    return length if type(length) is int and length > 0 else None


def _advice(error: FaultError, key_name: str) -> str:
    if error.fault is Fault.UNREACHABLE:
        return "; start the server first, or change base_url"
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"; the key is taken from {key_name}; where it is in another variable, set api_key_env"
    return "; most servers want base_url to end in /v1" if error.status == HTTPStatus.NOT_FOUND else ""
