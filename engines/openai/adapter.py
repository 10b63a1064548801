"""The endpoint as the driver sees it: one thread, and an event loop that runs only while the driver lets it.

A poll drives the loop until something has come in, the next request is due, or a while has passed, and hands over what
came in with the time at which it did. Nothing runs between two polls, so nothing is stamped that is not handed over.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engines.core.adapter import Delivery, Failure, Site, Submission
from engines.core.types import Refusal
from engines.openai.account import Tally, require_room, resolved
from engines.openai.answer import Answer, Expected
from engines.openai.client import Client, Limits
from engines.openai.dialect import Dialect
from engines.openai.faults import FaultError
from engines.openai.inbox import Inbox
from engines.openai.probe import Findings, Probe
from engines.openai.prompts import writer_for
from engines.openai.pump import Pump
from engines.openai.secret import Secret

if TYPE_CHECKING:
    from engines.openai.options import OpenAi

PATIENCE_S = 20e-3  # of a poll; the driver has other things to look after
# The selector counts in milliseconds and rounds up: the last one before an arrival is left to the driver's own wait.
SELECTOR_S = 1e-3
TURNS = 2  # what comes in or sets out in one turn of the loop is taken on in the next


class OpenAiAdapter:
    def __init__(self, options: OpenAi, site: Site) -> None:
        self._options = options
        self._site = site
        self._secret = Secret(options.api_key_env)
        self._writer = writer_for(options.prompt, options.tokenizer)
        self._pump = Pump()
        self._inbox = Inbox(site.clock, self._pump.stop)
        self._tally = Tally()
        self._client: Client | None = None
        self._dialect = Dialect(self._writer.path, "")
        self._resolved: dict[str, object] = {}

    def start(self) -> dict[str, object]:
        """Asks the endpoint what it is. What serving shows is added to the same mapping by `close`."""
        try:
            found = self._pump.run(self._begin())
            require_room(self._options, self._site, found)
        except BaseException:
            self.close()
            raise
        self._dialect = found.dialect
        self._resolved = resolved(self._options, self._site, found, self._secret)
        return self._resolved

    def submit(self, submission: Submission) -> Refusal | None:
        request_id, tokens = submission.request_id, submission.max_new_tokens
        prompt = self._writer.write(submission.token_ids)
        if prompt.tokens != submission.prompt_tokens:
            wanted = f"{submission.prompt_tokens} tokens as {self._options.prompt}, the nearest has {prompt.tokens}"
            return Refusal(request_id, f"no prompt of {wanted}")
        body = self._dialect.body(prompt, tokens, submission.stop_ids)
        expected = Expected(prompt.tokens + self._dialect.prompt_tokens_added, tokens, bool(submission.stop_ids))
        self._inbox.expect(request_id)
        self._drive(0.0)  # connections that the server has closed meanwhile are no longer used
        self._pump.begin(self._serve(request_id, body, expected))
        self._turn()  # the bytes leave now, however many requests are due
        return None

    @property
    def busy(self) -> bool:
        return self._inbox.in_flight > 0 or self._inbox.has_news

    def poll(self, now_s: float) -> Delivery | None:
        if not self.busy:
            return None
        patience_s = self._patience_s()
        if patience_s > 0:
            if not self._inbox.has_news:
                self._drive(patience_s)
        else:
            self._turn()
        return self._inbox.take()

    def close(self) -> None:
        """Ends what is under way. May be called again."""
        self._inbox.abandon()
        client, self._client = self._client, None
        self._pump.close(None if client is None else client.close)
        if client is not None:
            self._tally.retries, self._tally.renewed_connections = client.retries, client.renewed_connections
            self._resolved |= self._tally.served()

    async def _begin(self) -> Findings:
        options = self._options
        limits = Limits(
            options.connect_timeout_s,
            options.silence_timeout_s,
            options.request_timeout_s,
            options.retries,
            options.max_connections,
        )
        self._client = Client(options.url, self._secret, limits)
        probe = Probe(self._client, options.url, self._secret, self._writer)
        return await probe.run(options.served_model, options.extra_body)

    async def _serve(self, request_id: int, body: bytes, expected: Expected) -> None:
        assert self._client is not None, "start() made it"
        answer = Answer(expected, self._dialect.counting, partial(self._inbox.tokens, request_id))
        self._tally.requests += 1
        try:
            await self._client.stream(self._dialect.path, body, answer)
        except FaultError as error:
            detail = answer.account(self._secret.account(error))
            self._inbox.failed(Failure(request_id, error.fault.value, detail))
        finally:
            self._tally.tokens += answer.tokens
            self._tally.chunks += answer.chunks

    def _drive(self, patience_s: float) -> None:
        self._inbox.begin_round()
        self._pump.drive(patience_s)

    def _turn(self) -> None:
        for _ in range(TURNS):
            self._drive(0.0)

    def _patience_s(self) -> float:
        next_s = self._site.next_arrival_s()
        if next_s is None:
            return PATIENCE_S
        return min(PATIENCE_S, next_s - self._site.clock.now() - SELECTOR_S)
