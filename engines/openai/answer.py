"""The tokens of one answer: counted as they come, held against what was asked and against the server's own count.

One chunk may carry several tokens or none, so that chunks are not counted where anything better is to be had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from engines.openai.chunks import DONE, Chunk, Usage, read_chunk
from engines.openai.faults import Fault, FaultError

Give = Callable[[Sequence[int], bool], None]  # tokens that have come, and whether the answer is complete with them


class Counting(StrEnum):
    """How tokens are counted, best first. Only the first says which they are."""

    IDS = "token ids in the stream"
    USAGE = "the running usage in each chunk"
    TEXTS = "chunks with text, settled by the usage at the end"


@dataclass(frozen=True, slots=True)
class Expected:
    """`prompt_tokens`: as the server should count them. `may_stop`: a stop token may end the answer early."""

    prompt_tokens: int
    tokens: int
    may_stop: bool = False


class Answer:
    def __init__(self, expected: Expected, counting: Counting, give: Give) -> None:
        self._expected = expected
        self._counting = counting
        self._give = give
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self.tokens = 0
        self.chunks = 0  # with tokens in them

    def take(self, event: bytes) -> bool:
        """True: the answer is complete. FaultError: it never will be."""
        if event == DONE:
            self._complete()
            return True
        chunk = read_chunk(event)
        self._usage = chunk.usage or self._usage
        self._finish_reason = chunk.finish_reason or self._finish_reason
        found = self._tokens_in(chunk)
        if found:
            self.chunks += 1
            self._hand_over(found)
        return False

    def close(self) -> None:
        """The stream has ended. Some servers leave [DONE] out, but none the reason why it stopped."""
        if self._finish_reason is None:
            raise FaultError(Fault.CUT, "the stream ended before the answer did")
        self._complete()

    def account(self, what: str) -> str:
        """What went wrong, and how far the answer had come by then."""
        return f"{what}; {self.tokens} of {self._expected.tokens} tokens had come" if self.tokens else what

    def _tokens_in(self, chunk: Chunk) -> Sequence[int]:
        if self._counting is Counting.IDS:
            if chunk.token_ids is None and chunk.has_text:
                raise FaultError(Fault.MISCOUNTED, "text without its token ids")
            return chunk.token_ids or ()
        if self._counting is Counting.USAGE:
            total = self.tokens if chunk.usage is None else chunk.usage.completion_tokens
            if total < self.tokens:
                raise FaultError(Fault.MISCOUNTED, f"the running usage went back from {self.tokens} to {total} tokens")
            return self._unknown(total - self.tokens)
        # What was counted too many could not be taken back.
        return self._unknown(1 if chunk.has_text and self.tokens < self._expected.tokens else 0)

    def _unknown(self, count: int) -> Sequence[int]:
        self._refuse_surplus(count)  # before a tuple as long as the server likes
        return (0,) * count

    def _hand_over(self, found: Sequence[int]) -> None:
        self._refuse_surplus(len(found))
        self.tokens += len(found)
        self._give(found, False)

    def _refuse_surplus(self, count: int) -> None:
        if self.tokens + count > self._expected.tokens:
            asked = self._expected.tokens
            raise FaultError(Fault.MISCOUNTED, f"{self.tokens + count} tokens came, {asked} were asked for")

    def _complete(self) -> None:
        rest = self._settled()
        expected, usage = self._expected, self._usage
        stopped = expected.may_stop and self._finish_reason == "stop"
        if self.tokens + len(rest) < expected.tokens and not stopped:
            raise FaultError(Fault.SHORT, "the server ended it, finish_reason", str(self._finish_reason))
        if usage is not None and usage.prompt_tokens != expected.prompt_tokens:
            counts = f"the server counts {usage.prompt_tokens} prompt tokens, not {expected.prompt_tokens}"
            raise FaultError(Fault.MISCOUNTED, counts)
        self.tokens += len(rest)
        self._give(rest, True)

    def _settled(self) -> Sequence[int]:
        """What is still owed, now that the server has said how many there were."""
        told = None if self._usage is None else self._usage.completion_tokens
        if self._counting is Counting.TEXTS:
            if told is None:  # then its word that it stopped for length has to do
                told = self._expected.tokens if self._finish_reason == "length" else self.tokens
            if told >= self.tokens:
                return self._unknown(told - self.tokens)
        if told is not None and told != self.tokens:
            raise FaultError(Fault.MISCOUNTED, f"the server counts {told} tokens, {self.tokens} came")
        return ()
