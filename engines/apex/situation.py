"""What a step has before it, and how many tokens per second each mode would make of it.

All times are per layer; of what happens once per step every layer carries its share. Not here: what a mode does with
the requests (modes.py), and which one is taken (policy.py).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter

from engines.core.cost import Predictor, Work
from engines.core.dealing import Pipeline, accel_work, host_seconds
from engines.core.policy import Proposal, View
from engines.core.request import Request
from engines.core.types import Mode

JOINED_TRIES = 4  # everybody, half, a quarter, an eighth


@dataclass(slots=True)
class Situation:
    """The accelerator's own rows, host decodes on the ground, cohorts in flight. Everything is priced once."""

    proposal: Proposal
    view: View
    work: Work = field(init=False)
    own: int = field(init=False)  # rows that yield a token without the host, and what they attend to
    own_kv: int = field(init=False)
    host: list[Request] = field(init=False)  # on the ground, shortest context first
    host_kv: list[int] = field(init=False)  # context tokens of the first 0, 1, ... of them
    flying: int = field(init=False)  # rows in flight, and their context tokens
    flying_kv: int = field(init=False)
    accel_s: float = field(init=False)  # T_pref + T_gatt of the accelerator's own rows
    rows: int = field(init=False)  # theirs in a matrix product
    everybody: int = field(init=False)  # in the queues, and what they attend to together
    whole_kv: int = field(init=False)
    _pipeline: Pipeline | None = None
    _joined: int | None = None
    _overlapping: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        proposal, cohorts = self.proposal, self.view.cohorts
        self.work = accel_work(proposal.decodes, proposal.prefills)
        prompts = [each.request.known for each in proposal.prefills if each.tokens == each.request.pending]
        self.own, self.own_kv = self.work.sampled, self.work.decode_kv_tokens + sum(prompts)
        self.host = sorted(proposal.host_decodes, key=attrgetter("known"))
        self.host_kv = [0, *accumulate([request.known for request in self.host])]
        self.flying = sum([len(cohort.requests) for cohort in cohorts])
        self.flying_kv = sum([cohort.kv_tokens for cohort in cohorts])
        self.accel_s, self.rows = 0.0, 0
        if self.view.predict is not None:
            self.accel_s = self.predict.accel_attention_s(self.work)
            self.rows = self.predict.gemm_rows(self.work)
        self.everybody = self.own + len(self.host) + self.flying
        self.whole_kv = self.own_kv + self.host_kv[-1] + self.flying_kv

    @property
    def predict(self) -> Predictor:
        assert self.view.predict is not None
        return self.view.predict

    # --- tokens per second -------------------------------------------------------------------------------------------

    def rates(self) -> dict[Mode, float]:
        """Every mode that has something to do, in turns (nothing overlaps) included."""
        rates = {}
        if self.work.tokens:
            rates[Mode.GPU_ONLY] = self.alone()
            rates[Mode.ASYNC_OVERLAP] = self.overlapping(0)
            rates[Mode.FULL_OVERLAP] = self.overlapping(self.joined)
        if self.host:
            rates[Mode.ASYMMETRIC] = self.asymmetric()
            rates[Mode.SEQUENTIAL] = self.in_turns()
        return rates

    def alone(self) -> float:
        return self._rate(0, 0, (self.linear_s(0) + self.accel_s) / self.predict.accel_slowdown)

    def in_turns(self) -> float:
        rows = len(self.host)
        return self._rate(rows, self.host_kv[rows], self.linear_s(rows) + self.accel_s + self.host_s(rows))

    def asymmetric(self) -> float:
        if not self.work.tokens:
            return self.in_turns()
        pipeline = self.pipeline
        return self._rate(pipeline.host_rows, pipeline.host_kv, pipeline.layer_s)

    def asymmetric_at_most(self) -> float:
        """Without dealing: two linear parts, the host busy all the time with the longest contexts it has time for."""
        rows, layer_s = len(self.host), self.linear_s(0) + self.predict.linear_s(1) + self.accel_s
        busy_s = self.linear_s(rows) + self.predict.linear_s(max(rows, 1)) + self.accel_s
        kv = [self.host_kv[-1] - each for each in reversed(self.host_kv)]
        served = fitting(self.predict, self.host_kv, busy_s), fitting(self.predict, kv, busy_s)
        return self._rate(served[0], max(self.host_kv[served[0]], kv[served[1]]), layer_s)

    def overlapping(self, joined: int) -> float:
        """(B_G + j + x) / (T_lin(B_G + j + x) + max(T_gatt, T_catt(j))), x rows per layer from lagging cohorts."""
        rate = self._overlapping.get(joined)
        if rate is None:
            rate = self._overlapping[joined] = self._rate_overlapping(joined)
        return rate

    def _rate_overlapping(self, joined: int) -> float:
        lagging, each_kv = self._lagging(joined)
        layer_s = self.linear_s(joined + round(lagging)) + max(self.accel_s, self.host_s(joined))
        return self._rate(joined + lagging, self.host_kv[joined] + lagging * each_kv, layer_s)

    @property
    def joined(self) -> int:
        """How many keep up with the batch: as many as make the most tokens per second, the shortest contexts first."""
        if self._joined is None:
            self._joined = max((self.overlapping(count), count) for count in self._counts())[1]
        return self._joined

    @property
    def pipeline(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = Pipeline.dealt(self.predict, self.work, self.proposal.host_decodes)
        return self._pipeline

    # --- times -------------------------------------------------------------------------------------------------------

    def linear_s(self, more: int) -> float:
        """Of the accelerator's own rows and so many more."""
        return self.predict.linear_s(self.rows + more)

    def host_s(self, first: int) -> float:
        return host_seconds(self.predict, first, self.host_kv[first])

    def window_s(self, joined: int) -> float:
        """What a layer leaves of the host's time."""
        return self.linear_s(joined) + max(self.accel_s - self.host_s(joined), 0.0)

    def _counts(self) -> set[int]:
        """Nobody, everybody, as many as hide behind the accelerator's own attention, and some between."""
        most = len(self.host)
        hidden = fitting(self.predict, self.host_kv, self.accel_s)
        return {0, hidden, *(most >> halvings for halvings in range(JOINED_TRIES))}

    def _lagging(self, joined: int) -> tuple[float, float]:
        """Rows per layer of all who do not keep up, in flight or about to be, and their mean context: one layer per
        pass, if the host can.
        """
        requests = len(self.host) - joined + self.flying
        if not requests:
            return 0.0, 0.0
        each_kv = (self.host_kv[-1] - self.host_kv[joined] + self.flying_kv) / requests
        rows, window_s = requests / self.view.capabilities.layers, self.window_s(joined)
        most = math.ceil(rows)

        def host_s(rows: int) -> float:
            return host_seconds(self.predict, rows, round(rows * each_kv))

        if host_s(most) <= window_s:
            return rows, each_kv
        return min(rows, float(bisect_right(range(1, most), window_s, key=host_s))), each_kv

    def _rate(self, host_rows: float, host_kv: float, layer_s: float) -> float:
        """Of the accelerator's own rows and so many of the host's. Who attends to more counts for more: everybody has
        to get to the end, and a mode that takes the short contexts first is not faster, the long ones are still to
        come. Where all contexts are equal this counts tokens.
        """
        if not layer_s or not self.whole_kv:
            return 0.0
        once_s = self.predict.step_overhead_s + self.predict.head_s(round(self.own + host_rows))
        layer_s += once_s / self.view.capabilities.layers
        return (self.own_kv + host_kv) * self.everybody / self.whole_kv / (layer_s * self.view.capabilities.layers)


def fitting(predict: Predictor, kv: Sequence[int], window_s: float) -> int:
    """How many requests the host serves within a window; `kv` counts the tokens of none, one, two, ... of them."""
    return bisect_right(range(1, len(kv)), window_s, key=lambda rows: host_seconds(predict, rows, kv[rows] - kv[0]))
