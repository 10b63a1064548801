"""The modes of APEX as arithmetic: what each would make of the situation, and how many tokens per second that is.

All times are per layer; of what happens once per step every layer carries its share.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import attrgetter

from engines.core.cost import Predictor, Work
from engines.core.dealing import Pipeline, accel_work, host_seconds
from engines.core.policy import BatchDecision, CohortDecision, Decision, Proposal, View
from engines.core.request import Request
from engines.core.types import AWAITED, Mode

SPARE_PATIENCE = 0.25  # of a layer's time, on top of the predicted stall: predictions are off by some per cent
JOINED_TRIES = 4  # everybody, half, a quarter, an eighth


@dataclass(frozen=True, slots=True)
class Option:
    """One way to run the step: host decodes per half, or cohorts. `rate`: predicted tokens per second of a layer's
    time."""

    mode: Mode
    rate: float
    proposal: Proposal
    batches: tuple[BatchDecision, ...]
    cohorts: tuple[CohortDecision, ...] = ()

    def decision(self) -> Decision:
        return self.proposal.decision(self.mode, *self.batches, cohorts=self.cohorts)


@dataclass(slots=True)
class Situation:
    """What a step has before it: the accelerator's own rows, host decodes on the ground, cohorts in flight."""

    proposal: Proposal
    view: View
    most_cohorts: int
    work: Work = field(init=False)
    own: int = field(init=False)  # rows that yield a token without the host
    own_kv: int = field(init=False)  # what those attend to
    host: list[Request] = field(init=False)  # on the ground, shortest context first
    accel_s: float = field(init=False)  # T_pref + T_gatt of the accelerator's own rows
    host_kv: list[int] = field(init=False)  # context tokens of the first 0, 1, ... of them
    flying: int = field(init=False)  # rows in flight, and their context tokens
    flying_kv: int = field(init=False)
    _keeping_up: tuple[int, float] | None = None  # how many join, and the rate with them: asked more than once

    def __post_init__(self) -> None:
        self.work = accel_work(self.proposal.decodes, self.proposal.prefills)
        self.own = self.work.sampled
        self.host = sorted(self.proposal.host_decodes, key=attrgetter("known"))
        self.accel_s = 0.0 if self.view.predict is None else self.predict.accel_attention_s(self.work)
        self.host_kv = [0, *accumulate([request.known for request in self.host])]
        in_flight = [request.known for cohort in self.view.cohorts for request in cohort.requests]
        self.flying, self.flying_kv = len(in_flight), sum(in_flight)
        prompts = [each.request.known for each in self.proposal.prefills if each.tokens == each.request.pending]
        self.own_kv = self.work.decode_kv_tokens + sum(prompts)

    @property
    def predict(self) -> Predictor:
        assert self.view.predict is not None
        return self.view.predict

    def options(self) -> list[Option]:
        """All modes as things stand. A mode that would leave cohorts hanging lets them land first: nobody takes off."""
        others = [self._asymmetric()] if self.host else []
        if self.work.tokens:
            others.append(self._alone())
        overlapping = self._overlap(Mode.FULL_OVERLAP)
        if not self.view.cohorts:
            return [overlapping, *others]
        landing = self._overlap(Mode.FULL_OVERLAP, takes_off=False)
        return [overlapping, *(replace(landing, rate=other.rate) for other in others)]

    def option(self, mode: Mode) -> Option:
        """A mode that cannot be run as things stand becomes the nearest that can."""
        if mode in (Mode.GPU_ONLY, Mode.ASYMMETRIC) and self.view.cohorts:
            mode = Mode.ASYNC_OVERLAP
        if mode is Mode.GPU_ONLY and not self.work.tokens:
            mode = Mode.ASYMMETRIC
        if mode is Mode.GPU_ONLY:
            return self._alone()
        if mode is Mode.ASYMMETRIC:
            return self._asymmetric()
        return self._overlap(mode)

    def by_the_paper(self) -> Mode:
        """Equation 6 for steps that only decode, and what follows from the same argument for the others."""
        if not self.host:
            return Mode.ASYNC_OVERLAP if self.view.cohorts else Mode.GPU_ONLY
        if not self.work.decode_rows:
            return Mode.ASYMMETRIC
        linear_s, accel_s = self._linear_s(0), self.accel_s
        ratio = gpu_over_cpu(self.work.decode_rows, accel_s, len(self.host), self._host_s(len(self.host)))
        if self.work.prefill_tokens:
            return Mode.ASYMMETRIC if ratio < mixed_bound(self.predict, self.work) else Mode.ASYNC_OVERLAP
        return Mode.ASYMMETRIC if ratio < decode_bound(accel_s / linear_s) else Mode.ASYNC_OVERLAP

    def rates(self) -> dict[Mode, float]:
        """Tokens per second of every mode that has something to do, in turns (nothing overlaps) included."""
        rates = {}
        if self.work.tokens:
            rates[Mode.GPU_ONLY] = self._alone().rate
            rates[Mode.ASYNC_OVERLAP] = self._flying_rate(0)
            rates[Mode.FULL_OVERLAP] = self._joined()[1]
        if self.host:
            rows = len(self.host)
            rates[Mode.ASYMMETRIC] = self._asymmetric().rate
            turn_s = self._linear_s(rows) + self.accel_s + self._host_s(rows)
            rates[Mode.SEQUENTIAL] = self._rate(rows, self.host_kv[rows], turn_s)
        return rates

    # --- each mode ---------------------------------------------------------------------------------------------------

    def _alone(self) -> Option:
        rate = self._rate(0, 0, self._alone_s())
        return Option(Mode.GPU_ONLY, rate, self.proposal, (self.proposal.batch(()),))

    def _asymmetric(self) -> Option:
        if self.view.predict is None:
            return self._pipelined([], self.proposal.host_decodes, 0.0)
        pipeline = Pipeline.dealt(self.predict, self.work, self.proposal.host_decodes)
        first, second = (half.host for half in pipeline.halves)
        if not (self.work.tokens or pipeline.host_rows):
            second = self.host
        return self._pipelined(first, second, self._rate(pipeline.host_rows, pipeline.host_kv, pipeline.layer_s))

    def _pipelined(self, first: Sequence[Request], second: Sequence[Request], rate: float) -> Option:
        return Option(Mode.ASYMMETRIC, rate, self.proposal, self.proposal.halves(first, second))

    def _overlap(self, mode: Mode, takes_off: bool = True) -> Option:
        """Who keeps up, who flies."""
        batch = (self.proposal.batch(()),)
        if not self.work.tokens:  # nothing to overlap with: everybody is waited for
            cohorts = [CohortDecision(cohort, patience_us=AWAITED) for cohort in self.view.cohorts]
            if self.host:
                cohorts.append(CohortDecision(None, self.host, AWAITED))
            return Option(mode, 0.0, self.proposal, batch, tuple(cohorts))
        joined, rate, patience_us = self._joined() if mode is Mode.FULL_OVERLAP else ([], self._flying_rate(0), 0)
        flying = [CohortDecision(cohort) for cohort in self.view.cohorts]
        if joined:
            flying.insert(0, CohortDecision(None, joined, patience_us))
        if takes_off and len(joined) < len(self.host) and len(self.view.cohorts) < self.most_cohorts:
            flying.append(CohortDecision(None, self._cohort(joined)))
        return Option(mode, rate, self.proposal, batch, tuple(flying))

    def _joined(self) -> tuple[list[Request], float, int]:
        """As many as make the most tokens per second, the shortest contexts first; with them the rate and the
        patience.
        """
        if self.view.predict is None:
            return self.host, 0.0, AWAITED
        if self._keeping_up is None:
            rate, count = max((self._flying_rate(count), count) for count in self._counts())
            self._keeping_up = count, rate
        count, rate = self._keeping_up
        stall_s = max(0.0, self._host_s(count) - self.accel_s)
        patience_s = stall_s + SPARE_PATIENCE * (self._linear_s(count) + self.accel_s)
        return self.host[:count], rate, int(patience_s * 1e6)

    def _counts(self) -> set[int]:
        """Nobody, everybody, as many as hide behind the accelerator's own attention, and some between."""
        most = len(self.host)
        return {0, self._fitting(0, self.accel_s), *(most >> halvings for halvings in range(JOINED_TRIES))}

    def _flying_rate(self, joined: int) -> float:
        """(B_G + j + x) / (T_lin(B_G + j + x) + max(T_gatt, T_catt(j))), x rows per layer from lagging cohorts."""
        if self.view.predict is None:
            return 0.0
        lagging, each_kv = self._lagging(joined)
        attention_s = max(self.accel_s, self._host_s(joined))
        layer_s = self._linear_s(joined + round(lagging)) + attention_s
        return self._rate(joined + lagging, self.host_kv[joined] + lagging * each_kv, layer_s)

    def _lagging(self, joined: int) -> tuple[float, float]:
        """Rows per layer of all who do not keep up, in flight or about to be, and their mean context: one layer per
        pass, if the host can.
        """
        requests = len(self.host) - joined + self.flying
        if not requests:
            return 0.0, 0.0
        each_kv = (self.host_kv[-1] - self.host_kv[joined] + self.flying_kv) / requests
        window_s = self._window_s(joined)
        served = bisect_right(
            range(1, requests + 1), window_s, key=lambda rows: host_seconds(self.predict, rows, round(rows * each_kv))
        )
        return min(requests / self.view.capabilities.layers, float(served)), each_kv

    def _cohort(self, joined: Sequence[Request]) -> list[Request]:
        """Of those who do not keep up as many as the host finishes in a window, the oldest first: nobody starves."""
        keeping_up = set(joined)
        behind = [request for request in self.proposal.host_decodes if request not in keeping_up]
        if self.view.predict is None:
            return behind[: -(-len(behind) // self.most_cohorts)]
        kv = [0, *accumulate([request.known for request in behind])]
        return behind[: max(1, fitting(self.predict, kv, self._window_s(len(joined))))]

    def _window_s(self, joined: int) -> float:
        """What a layer leaves of the host's time."""
        return self._linear_s(joined) + max(self.accel_s - self._host_s(joined), 0.0)

    def _fitting(self, joined: int, window_s: float) -> int:
        """How many of those behind the first the host serves within a window."""
        return fitting(self.predict, self.host_kv[joined:], window_s)

    # --- times -------------------------------------------------------------------------------------------------------

    def _alone_s(self) -> float:
        return 0.0 if self.view.predict is None else self._linear_s(0) + self.accel_s

    def _linear_s(self, more: int) -> float:
        return self.predict.linear_s(self.predict.gemm_rows(self.work) + more)

    def _host_s(self, first: int) -> float:
        return host_seconds(self.predict, first, self.host_kv[first])

    def _rate(self, host_rows: float, host_kv: float, layer_s: float) -> float:
        """Of the accelerator's own rows and so many of the host's. Who attends to more counts for more: everybody has
        to get to the end, and a mode that takes the short contexts first is not faster, the long ones are still to
        come. Where all contexts are equal this counts tokens.
        """
        if self.view.predict is None or not layer_s:
            return 0.0
        everybody = self.own + len(self.host) + self.flying
        tokens = (self.own_kv + host_kv) * everybody / (self.own_kv + self.host_kv[-1] + self.flying_kv)
        once_s = self.predict.step_overhead_s + self.predict.head_s(round(self.own + host_rows))
        return tokens / (layer_s + once_s / self.view.capabilities.layers)


def fitting(predict: Predictor, kv: Sequence[int], window_s: float) -> int:
    """How many requests the host serves within a window; `kv` counts the tokens of none, one, two, ... of them."""
    return bisect_right(range(1, len(kv)), window_s, key=lambda rows: host_seconds(predict, rows, kv[rows] - kv[0]))


def gpu_over_cpu(accel_rows: int, accel_s: float, host_rows: int, host_s: float) -> float:
    """N_G / N_C: attended requests per second on either side."""
    return (accel_rows / accel_s) / (host_rows / host_s)


def decode_bound(r: float) -> float:
    """Asymmetric pipelining wins below it: 2 / r + 3 + r, r = T_gatt / T_lin [equation 6 of the paper, secondary]."""
    return 2.0 / r + 3.0 + r


def mixed_bound(predict: Predictor, work: Work) -> float:
    """The same with prompts in the first half [derived]: T_ov (T_ov - T_lin) / (T_gatt T_lin)."""
    decodes = Work(tokens=work.decode_rows, decode_rows=work.decode_rows, decode_kv_tokens=work.decode_kv_tokens)
    linear_s, accel_s = predict.linear_s(work.decode_rows), predict.accel_attention_s(decodes)
    prompts_s = predict.accel_attention_s(work) - accel_s
    whole_s = predict.linear_s(predict.gemm_rows(work)) + prompts_s + accel_s + linear_s
    return whole_s * (whole_s - linear_s) / (accel_s * linear_s)
