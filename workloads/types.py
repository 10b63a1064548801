"""What a workload is: requests with arrival times and token counts, and the statistics that were really drawn.

Not here: how lengths and arrivals are drawn (`lengths`, `arrivals`), nor token ids (`prompts`). Lengths are a
property of the workload, never of what a model generates, so that every engine does the same work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_TOKENS = 2**31 - 1  # records keep token counts as int32


class WorkloadError(ValueError):
    """A workload that cannot be built as asked; the message is one line and says what to change."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as the client will send it.

    A later turn (`turn` > 0) has no schedule of its own: it is sent `think_s` after the last token of the turn before
    it in the same `session`, and its `arrival_s` is only the earliest moment that could be (answers that take no
    time). `session` is -1 for a request that belongs to no conversation.
    """

    request_id: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    session: int = -1
    turn: int = 0
    think_s: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.prompt_tokens <= MAX_TOKENS:
            raise WorkloadError(f"request {self.request_id}: prompt_tokens must be 1..{MAX_TOKENS}")
        if not 1 <= self.output_tokens <= MAX_TOKENS:
            raise WorkloadError(f"request {self.request_id}: output_tokens must be 1..{MAX_TOKENS}")
        if not 0 <= self.arrival_s < math.inf:
            raise WorkloadError(f"request {self.request_id}: arrival_s must be finite and not negative")
        if not 0 <= self.think_s < math.inf:
            raise WorkloadError(f"request {self.request_id}: think_s must be finite and not negative")


@dataclass(frozen=True, slots=True)
class Clipping:
    """What `clip` took away so that every engine of a run can hold every request."""

    limit_tokens: int
    clipped_requests: int
    prompt_tokens_cut: int
    output_tokens_cut: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in the order of their arrival; `sources` says where each parameter of the generator comes from.

    Closed loop: with `closed_loop_users` = n > 0 the arrival times are all zero and mean nothing. n users each keep
    one request in flight: a user takes the first request nobody has taken (the next turn of its own session before
    any other), waits its `think_s` (counted from the end of that user's request before; none at the start), and sends
    it.
    """

    name: str
    kind: str
    requests: Sequence[Request]
    arrivals: str
    sources: tuple[str, ...]
    clipped: Clipping | None
    closed_loop_users: int = 0

    def __post_init__(self) -> None:
        if not self.requests:
            raise WorkloadError(f"workload {self.name} has no requests")
        ids = _column(self.requests, "request_id")
        if np.unique(ids).size < ids.size:
            raise WorkloadError(f"workload {self.name} has two requests with one request_id")
        arrivals = _column(self.requests, "arrival_s")
        if (np.diff(arrivals) < 0).any():
            raise WorkloadError(f"the requests of workload {self.name} are not in the order of their arrival")


@dataclass(frozen=True, slots=True)
class RealisedStatistics:
    """What one draw came to. Rate and variation are None where a schedule spans no time (all at once, closed loop)."""

    requests: int
    prompt_tokens_mean: float
    prompt_tokens_p50: float
    prompt_tokens_p90: float
    prompt_tokens_p99: float
    output_tokens_mean: float
    output_tokens_p50: float
    output_tokens_p90: float
    output_tokens_p99: float
    requests_per_s: float | None
    arrival_cv: float | None


def realised(workload: Workload) -> RealisedStatistics:
    """Measure the workload as drawn (after clipping, if it was clipped)."""
    prompt = _mean_and_percentiles(_column(workload.requests, "prompt_tokens"))
    output = _mean_and_percentiles(_column(workload.requests, "output_tokens"))
    rate, variation = _arrival_statistics(workload)
    return RealisedStatistics(len(workload.requests), *prompt, *output, rate, variation)


def _column(requests: Sequence[Request], name: str) -> npt.NDArray[Any]:
    """Of a field; packed requests (packed.py) have it."""
    packed = getattr(requests, "column", None)
    return np.array([getattr(request, name) for request in requests]) if packed is None else packed(name)


def _mean_and_percentiles(tokens: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    p50, p90, p99 = np.percentile(tokens, [50, 90, 99])
    return float(np.mean(tokens)), float(p50), float(p90), float(p99)


def _arrival_statistics(workload: Workload) -> tuple[float | None, float | None]:
    """Requests per second, and standard deviation over mean of the gaps, of scheduled arrivals (first turns) only."""
    if workload.closed_loop_users:
        return None, None
    scheduled = _column(workload.requests, "arrival_s")[_column(workload.requests, "turn") == 0]
    gaps = np.diff(scheduled)
    if len(gaps) == 0 or scheduled[-1] == scheduled[0]:
        return None, None
    rate = len(gaps) / (scheduled[-1] - scheduled[0])
    return rate, float(np.std(gaps) / np.mean(gaps))
