"""From request and step records to the flat figures of a cell: the formulas, and the one pass that applies them.

Pure functions on columns (request_columns.py); no torch, no clock, no files. What each key means is written once, in
metric_catalogue.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.collectors.steps import STEP_COLUMNS, StepTotals, union_of
from harness.errors import ConfigError
from harness.request_columns import (
    BoolArray,
    FloatArray,
    Records,
    Requests,
    Rows,
    gaps_s,
    meets_slo,
    per_request,
    tokens_on_time,
)
from harness.stats import EXACT_LIMIT, PERCENTILES, Spread, TimeCount, observations_needed

SLO_KEYS = ("ttft_s", "tpot_s", "e2e_s")
STATUSES = ("finished", "refused", "aborted", "failed")
# A plateau counts when this share of the measured requests also ended in it: only then is it long against one answer.
PLATEAU_MIN_SHARE = 0.5
BY_TIER = ("ttft_s", "tpot_s")  # a mean over both sides hides what the slower one waits
WHY_MISSING = {
    "overlap_efficiency": "no step kept two units busy",
    "overrun_share": "no ops were counted",
    "prediction_ratio": "nothing was predicted",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What a cell's summary takes over: flat figures, sentences for the reader, and why a figure is missing."""

    metrics: dict[str, float]
    notes: list[str]
    unavailable: dict[str, str]


@dataclass(frozen=True, slots=True)
class Window:
    kind: str  # "plateau" or "whole_run"
    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def checked_slo(slo: Mapping[str, float] | None) -> dict[str, float]:
    for key, limit in (slo or {}).items():
        if key not in SLO_KEYS or not limit > 0:
            raise ConfigError(f"slo has {key}: {limit}; it takes positive seconds for {', '.join(SLO_KEYS)}")
    return dict(slo or {})


def summarise(key: str, spread: Spread, observations: int | None = None) -> dict[str, float]:
    """`<key>_mean`, `_max`, and `_p50`, `_p50_low`, `_p50_high` (p90, p95, p99 likewise) where the sample allows."""
    if not spread.count:
        return {}
    metrics = {f"{key}_mean": spread.total / spread.count, f"{key}_max": spread.maximum}
    for percent, interval in spread.percentiles(observations).items():
        name = f"{key}_p{percent}"
        metrics |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return metrics


# --- one pass over a cell ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RequestTotals:
    first_arrival_s: float = math.inf
    measured_from_s: float = math.inf  # first and last arrival of the requests that are no warm-up
    measured_to_s: float = -math.inf
    first_token_s: float = math.inf
    last_token_s: float = -math.inf
    decode_tokens: float = 0.0
    decode_s: float = 0.0  # summed over requests
    read_tokens: int = 0  # tokens that had a deadline
    on_time_tokens: int = 0
    good_requests: int = 0
    preemptions: float = 0.0
    warmup_requests: int = 0
    host_requests: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    by_fault: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Requests, good: BoolArray) -> None:
        asked, answered = batch.arrival_s[~batch.warmup], batch.finished & (batch.output_tokens > 0)
        first_s, last_s = batch.first_token_s[answered], batch.last_token_s[answered]
        self.first_arrival_s = min(self.first_arrival_s, float(batch.arrival_s.min()))
        self.measured_from_s = min(self.measured_from_s, float(asked.min(initial=math.inf)))
        self.measured_to_s = max(self.measured_to_s, float(asked.max(initial=-math.inf)))
        self.first_token_s = min(self.first_token_s, float(first_s.min(initial=math.inf)))
        self.last_token_s = max(self.last_token_s, float(last_s.max(initial=-math.inf)))
        self.decode_tokens += float((batch.output_tokens[answered] - 1).sum())
        self.decode_s += float((last_s - first_s).sum())
        self.good_requests += int((good & ~batch.warmup).sum())
        self.preemptions += float(batch.preemptions[~batch.warmup].sum())
        self.warmup_requests += int(batch.warmup.sum())
        self.host_requests += int((batch.on_host & batch.measured).sum())
        self.by_status.update(batch.status[~batch.warmup].tolist())
        self.by_fault.update(batch.faults)

    @property
    def span_s(self) -> float:
        return self.last_token_s - self.first_arrival_s

    @property
    def decoding_s(self) -> float:
        return self.last_token_s - self.first_token_s

    def figures(self) -> dict[str, float]:
        metrics = {f"{status}_requests": float(self.by_status[status]) for status in STATUSES}
        metrics |= {f"fault_{fault}_requests": float(count) for fault, count in self.by_fault.items()}
        metrics |= {"warmup_requests": float(self.warmup_requests), "preemptions": self.preemptions}
        metrics["host_requests"] = float(self.host_requests)
        if self.read_tokens:
            metrics["fluidity_index"] = self.on_time_tokens / self.read_tokens
        if self.decoding_s > 0:
            metrics["decode_tokens_per_s"] = self.decode_tokens / self.decoding_s
        if self.span_s > 0:
            metrics["response_latency_s"] = self.span_s
        return metrics


class Aggregator:
    """Takes a cell's records in batches, in any order, and gives its figures; memory does not grow with their number.

    Percentiles and window counts are exact up to `exact_limit` values each, then binned: see Spread and TimeCount.
    """

    def __init__(self, slo: Mapping[str, float] | None = None, *, exact_limit: int = EXACT_LIMIT) -> None:
        self._slo = checked_slo(slo)
        self._limit = exact_limit
        self._spreads: dict[str, Spread] = {}
        self._counts = {name: TimeCount(exact_limit) for name in ("tokens", "prompt", "finished", "measured", "good")}
        self._seen = RequestTotals()
        self._pending_s: FloatArray = np.empty((0, 2))  # when some request was in the system
        self._steps = StepTotals()

    def add_requests(self, records: Records) -> None:
        batch = Requests.of(records)
        if not batch.arrival_s.size:
            return
        values, (gaps, owner) = per_request(batch), gaps_s(batch)
        for key, column in values.items():
            self._spread(key).add(column[batch.measured])
        self._spread("itl_s").add(gaps[batch.measured[owner]])
        for tier, there in (("accel", ~batch.on_host), ("host", batch.on_host)):
            for key in BY_TIER:
                self._spread(f"{tier}_{key}").add(values[key][batch.measured & there])
        good = meets_slo(batch, values, self._slo)
        self._seen.add(batch, good)
        self._count(batch, good)
        if {"ttft_s", "tpot_s"} <= set(self._slo):
            read = batch.measured[batch.owner]
            self._seen.read_tokens += int(read.sum())
            on_time = tokens_on_time(batch, self._slo["ttft_s"], self._slo["tpot_s"])
            self._seen.on_time_tokens += int((on_time & read).sum())
        served = np.column_stack([batch.arrival_s, batch.last_token_s])[~np.isnan(batch.last_token_s)]
        self._pending_s = union_of(np.concatenate([self._pending_s, served]))

    def add_steps(self, records: Records) -> None:
        rows = Rows(records)
        steps = {name: rows.numbers(name, missing) for name, missing in STEP_COLUMNS.items()}
        if not steps["started_s"].size:
            return
        self._steps.add(steps)
        observed_s = steps["ended_s"] - steps["started_s"]
        error = np.abs(steps["predicted_s"] - observed_s) / np.where(observed_s > 0, observed_s, np.nan)
        self._spread("prediction_error_percent").add(100 * error)
        self._spread("scheduler_us").add(1e6 * steps["scheduler_s"])

    def result(self) -> Measured:
        window = self.window()
        metrics = self._throughput(window) | self._seen.figures()
        unavailable = {}
        for key, value in self._step_figures().items():
            if math.isnan(value):
                unavailable[key] = WHY_MISSING.get(key, "nothing was observed")
            else:
                metrics[key] = value
        for key, spread in self._told_spreads():
            # Requests decoded in one step share its gap: one observation, not as many as there are requests.
            observations = int(spread.count / self._decoding_at_once()) if key == "itl_s" else spread.count
            metrics |= summarise(key, spread, observations)
            for percent in PERCENTILES:
                if f"{key}_p{percent}" not in metrics:
                    needed = observations_needed(percent)
                    unavailable[f"{key}_p{percent}"] = f"needs {needed} independent observations, has {observations}"
        if not {"ttft_s", "tpot_s"} <= set(self._slo):
            unavailable["fluidity_index"] = "needs ttft_s and tpot_s in slo"
        if not self._slo:
            unavailable["goodput_rps"] = unavailable["slo_attainment"] = "no slo was given"
        return Measured(metrics, [_window_note(window)], unavailable)

    def window(self) -> Window:
        """First to last arrival of the measured requests: before it is warm-up, after it the batch only drains."""
        seen, ended = self._seen, self._counts["measured"]
        plateau = Window("plateau", seen.measured_from_s, seen.measured_to_s)
        if plateau.length_s > 0:
            inside = ended.between(plateau.start_s, plateau.end_s)
            if inside and inside >= PLATEAU_MIN_SHARE * ended.total:
                return plateau
        return Window("whole_run", seen.first_arrival_s, seen.last_token_s) if seen.span_s > 0 else NO_WINDOW

    def _told_spreads(self) -> list[tuple[str, Spread]]:
        """Both sides apart only where both had requests."""
        apart = bool(self._seen.host_requests)
        tiers = tuple(f"{tier}_{key}" for tier in ("accel", "host") for key in BY_TIER)
        return [(key, spread) for key, spread in self._spreads.items() if apart or key not in tiers]

    def _spread(self, key: str) -> Spread:
        return self._spreads.setdefault(key, Spread(self._limit))

    def _count(self, batch: Requests, good: BoolArray) -> None:
        done = batch.finished & (batch.output_tokens > 0)
        untimed = done & ~np.isin(np.arange(done.size), batch.owner)  # a record without token times counts at its end
        self._counts["tokens"].add(batch.token_times_s[done[batch.owner]])
        self._counts["tokens"].add(batch.last_token_s[untimed], batch.output_tokens[untimed])
        self._counts["prompt"].add(batch.first_token_s[done], batch.prompt_tokens[done])
        self._counts["finished"].add(batch.last_token_s[done])
        self._counts["measured"].add(batch.last_token_s[done & ~batch.warmup])
        self._counts["good"].add(batch.last_token_s[good])

    def _throughput(self, window: Window) -> dict[str, float]:
        metrics = {"window_is_plateau": float(window.kind == "plateau")}
        metrics |= {"window_start_s": window.start_s, "window_s": window.length_s}
        offered = self._seen.by_status.total()
        if self._slo and offered:
            metrics["slo_attainment"] = self._seen.good_requests / offered
        whole = {name: count.total for name, count in self._counts.items()}
        if window.kind == "plateau":
            inside = {name: count.between(window.start_s, window.end_s) for name, count in self._counts.items()}
            metrics |= self._rates(inside, window.length_s, "")
        elif window.length_s > 0:
            metrics |= self._rates(whole, window.length_s, "")
        return metrics | (self._rates(whole, self._seen.span_s, "_whole_run") if self._seen.span_s > 0 else {})

    def _rates(self, got: Mapping[str, float], length_s: float, suffix: str) -> dict[str, float]:
        rates = {
            f"output_tokens_per_s{suffix}": got["tokens"] / length_s,
            f"total_tokens_per_s{suffix}": (got["tokens"] + got["prompt"]) / length_s,
            f"requests_per_s{suffix}": got["finished"] / length_s,
        }
        return rates | ({f"goodput_rps{suffix}": got["good"] / length_s} if self._slo else {})

    def _step_figures(self) -> dict[str, float]:
        if not self._steps.steps:
            return {}
        start_s = min(self._seen.first_arrival_s, self._steps.first_s)
        serving_s = max(self._seen.last_token_s, self._steps.last_s) - start_s
        pending_s = float(np.diff(self._pending_s).sum()) if self._pending_s.size else serving_s
        return self._steps.figures(serving_s, pending_s)

    def _decoding_at_once(self) -> float:
        return max(1.0, self._seen.decode_s / self._seen.decoding_s) if self._seen.decoding_s > 0 else 1.0


NO_WINDOW = Window("whole_run", 0.0, 0.0)


def aggregate(requests: Records, steps: Records = (), slo: Mapping[str, float] | None = None) -> Measured:
    """A whole cell at once."""
    aggregator = Aggregator(slo)
    aggregator.add_requests(requests)
    aggregator.add_steps(steps)
    return aggregator.result()


def _window_note(window: Window) -> str:
    head = f"window_kind: {window.kind}, window_s: {window.length_s:.3f}"
    if window.kind == "plateau":
        return f"{head} (first to last arrival of the measured requests)"
    return f"{head} (fewer than half of the measured requests ended before the last of them arrived)"
