"""The latency law of the mock engine: when each token of a request comes out. Known exactly, so that it can be checked.

    TTFT = ttft_s + ttft_s_per_prompt_token * prompt tokens, then a token every tpot_s

Not here: who waits for a slot (service.py), and clocks. The law is a function of a request and of when its service
begins; its jitter depends on the seed and the request alone, never on what else is running.
"""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.core.adapter import EngineAdapter, Site

ABOUT = "mock engine: no model runs"


@dataclass(frozen=True, slots=True)
class LatencyLaw:
    """The options of `kind: mock`. Between stall_at_s and stall_s later nothing comes out; then all that was due does.

    `jitter` j multiplies every latency by a number drawn between 1 - j and 1 + j. `slots` requests are served at a
    time, the others wait in order of arrival; without it nobody waits.
    """

    ttft_s: float = 0.02
    ttft_s_per_prompt_token: float = 0.0
    tpot_s: float = 0.005
    jitter: float = 0.0
    seed: int = 0
    stall_at_s: float = 0.0
    stall_s: float = 0.0
    slots: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{field.name}: must be 0 or more and finite, not {value}")
        if self.jitter >= 1:
            raise ValueError(
                f"jitter: must be below 1, or a token could come before the one before it, not {self.jitter}"
            )
        if self.slots == 0:
            raise ValueError("slots: must be 1 or more; leave it out to let nobody wait")

    @property
    def runs_model(self) -> bool:
        return False

    def problems(self, backend: str, paced: bool) -> list[str]:
        measured = backend in ("cuda", "endpoint")
        return [f"runs no model, so that on {backend} nothing would be measured"] if measured else []

    def open(self, site: Site) -> EngineAdapter:
        from engines.mock.adapter import MockAdapter

        return MockAdapter(self, site.clock, site.next_arrival_s if site.backend == "sim" else None)

    def token_times_s(self, request_id: int, prompt_tokens: int, output_tokens: int, begin_s: float) -> array[float]:
        """When each token comes out, [output_tokens], if service begins at `begin_s`."""
        draw = random.Random(f"{self.seed}/{request_id}") if self.jitter else None
        due_s = begin_s + _jittered(self.ttft_s + self.ttft_s_per_prompt_token * prompt_tokens, self.jitter, draw)
        times_s = array("d", [self._released_s(due_s)])
        for _ in range(output_tokens - 1):
            due_s += _jittered(self.tpot_s, self.jitter, draw)
            times_s.append(self._released_s(due_s))
        return times_s

    def _released_s(self, due_s: float) -> float:
        """A stall holds back what falls due in it and delays nothing else: the engine works on, silently."""
        end_s = self.stall_at_s + self.stall_s
        return end_s if self.stall_at_s <= due_s < end_s else due_s


def _jittered(latency_s: float, jitter: float, draw: random.Random | None) -> float:
    return latency_s if draw is None else latency_s * (1 + jitter * (2 * draw.random() - 1))
