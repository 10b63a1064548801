"""Everything that can go wrong with one request to an endpoint, as a closed set of words by which failures are counted.

Each ends its request and nothing else. Which symptom is which fault: client.py, chunks.py and answer.py.
"""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"
    SERVER_ERROR = "server_error"
    CUT = "cut"
    GARBAGE = "garbage"
    SILENCE = "silence"
    SLOW = "slow"
    SHORT = "short"
    MISCOUNTED = "miscounted"


MEANINGS: dict[Fault, str] = {
    Fault.UNREACHABLE: "no connection: refused, no such name, or not within connect_timeout_s",
    Fault.RATE_LIMITED: "answered 429; its Retry-After is in the reason",
    Fault.REJECTED: "answered with another 4xx, or sent elsewhere",
    Fault.SERVER_ERROR: "answered 5xx, or with an error inside the stream",
    Fault.CUT: "the connection ended before the answer did",
    Fault.GARBAGE: "the answer was no stream of events, no JSON, or of another shape",
    Fault.SILENCE: "no byte came for silence_timeout_s",
    Fault.SLOW: "not done within request_timeout_s, however steadily it came",
    Fault.SHORT: "ended by the server before as many tokens as were asked for",
    Fault.MISCOUNTED: "the server's own count of tokens is not what was sent or what came",
}


class FaultError(Exception):
    """A request has failed. `words` are the server's own: they may be anything, and hold anything, even our key.

    So nobody prints this: `Secret.account` makes a line of it. `status` is that of HTTP, where there was an answer.
    """

    def __init__(
        self, fault: Fault, detail: str, words: str = "", status: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.detail = detail
        self.words = words
        self.status = status
        self.retry_after_s = retry_after_s
