"""From request and step records to the flat figures of a cell: the formulas, and the one pass that applies them.

Pure functions on columns; no torch, no clock, no files. What each key means is written once, in metric_catalogue.py.
Records come as mappings, as objects with attributes, or as columns (mapping, pandas, arrow), named as on disk.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.openai.faults import Fault
from harness.collectors.steps import STEP_COLUMNS, StepTotals, union_of
from harness.errors import ConfigError
from harness.stats import EXACT_LIMIT, PERCENTILES, Spread, TimeCount, observations_needed

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Records = Iterable[Any] | Mapping[str, Sequence[Any]]

SLO_KEYS = ("ttft_s", "tpot_s", "e2e_s")
STATUSES = ("finished", "refused", "aborted", "failed")
FAULTS = frozenset(fault.value for fault in Fault)
# A plateau counts when this share of the measured requests also ended in it: only then is it long against one answer.
PLATEAU_MIN_SHARE = 0.5
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


# --- records -> columns -----------------------------------------------------------------------------------------------


class Rows:
    """Reads one column at a time from any of the shapes that records come in."""

    def __init__(self, records: Records) -> None:
        self._columns = _columns_of(records)
        self._rows = list(records) if self._columns is None else []
        self._size = len(self._rows) if self._columns is None else len(next(iter(self._columns.values()), ()))

    def raw(self, name: str, missing: Any) -> Sequence[Any]:
        if self._columns is not None:
            column: Sequence[Any] | None = self._columns.get(name)
            return [missing] * self._size if column is None else column
        if self._rows and isinstance(self._rows[0], Mapping):  # asked once: it takes longer than the reading
            return [row.get(name, missing) for row in self._rows]
        return [getattr(row, name, missing) for row in self._rows]

    def numbers(self, name: str, missing: float = math.nan) -> FloatArray:
        return np.array(self.raw(name, missing), dtype=np.float64)  # None becomes NaN


def _columns_of(records: Any) -> Mapping[str, Sequence[Any]] | None:
    """None for rows. Known by their methods, so that no simulated cell waits for pandas to be imported."""
    if hasattr(records, "to_pandas"):
        records = records.to_pandas()
    if hasattr(records, "iterrows"):
        return {str(name): records[name].to_numpy() for name in records}
    return records if isinstance(records, Mapping) else None


@dataclass(frozen=True, slots=True)
class Requests:
    """A batch of n request records as columns; token times lie end to end."""

    arrival_s: FloatArray
    dispatch_s: FloatArray
    first_scheduled_s: FloatArray
    first_token_s: FloatArray
    last_token_s: FloatArray
    prompt_tokens: FloatArray
    output_tokens: FloatArray
    preemptions: FloatArray
    preempted_s: FloatArray
    status: npt.NDArray[np.str_]
    finished: BoolArray
    warmup: BoolArray
    faults: list[str]  # a kind per request that failed of one, warm-up left out
    token_times_s: FloatArray  # [tokens]
    owner: IntArray  # [tokens]: row of the request
    place: IntArray  # [tokens]: 0 for a request's first token

    @property
    def measured(self) -> BoolArray:
        return self.finished & ~self.warmup

    @classmethod
    def of(cls, records: Records) -> Requests:
        rows = Rows(records)
        times = [np.asarray(() if t is None else t, dtype=np.float64) for t in rows.raw("token_times_s", ())]
        lengths = np.array([t.size for t in times], dtype=np.int64)
        owner = np.repeat(np.arange(lengths.size), lengths)
        status = np.array(rows.raw("status", "finished"), dtype=np.str_)
        output_tokens, finished = rows.numbers("output_tokens", 0.0), status == "finished"
        wrong = np.flatnonzero((lengths > 0) & (lengths != output_tokens) & finished)
        if wrong.size:
            request, row = rows.raw("request_id", "?")[wrong[0]], wrong[0]
            raise ValueError(f"request {request}: {lengths[row]} token times, {output_tokens[row]:.0f} output tokens")
        warmup = np.array(rows.raw("warmup", False), dtype=np.bool_)
        return cls(
            arrival_s=rows.numbers("arrival_s"),
            dispatch_s=rows.numbers("dispatch_s"),
            first_scheduled_s=rows.numbers("first_scheduled_s"),
            first_token_s=rows.numbers("first_token_s"),
            last_token_s=rows.numbers("last_token_s"),
            prompt_tokens=rows.numbers("prompt_tokens", 0.0),
            output_tokens=output_tokens,
            preemptions=rows.numbers("preemptions", 0.0),
            preempted_s=rows.numbers("preempted_s", 0.0),
            status=status,
            finished=finished,
            warmup=warmup,
            faults=_faults(rows.raw("reason", ""), (status == "failed") & ~warmup),
            token_times_s=np.concatenate([np.empty(0), *times]),
            owner=owner,
            place=np.arange(owner.size) - np.repeat(np.cumsum(lengths) - lengths, lengths),
        )


def _faults(reasons: Sequence[Any], failed: BoolArray) -> list[str]:
    """The word before the colon, where it is one of those that are counted."""
    kinds = (str(reasons[row]).partition(":")[0] for row in np.flatnonzero(failed).tolist())
    return [kind for kind in kinds if kind in FAULTS]


# --- formulas per request ---------------------------------------------------------------------------------------------


def per_request(batch: Requests) -> dict[str, FloatArray]:
    """One value per request and key, NaN where the request has none (a single token has no TPOT)."""
    answered = np.where(batch.output_tokens > 0, batch.output_tokens, np.nan)
    later = np.where(batch.output_tokens > 1, batch.output_tokens - 1, np.nan)
    e2e_s = batch.last_token_s - batch.arrival_s
    return {
        "ttft_s": batch.first_token_s - batch.arrival_s,
        "tpot_s": (batch.last_token_s - batch.first_token_s) / later,
        "max_stall_s": max_stall_s(batch),
        "e2e_s": e2e_s,
        "normalized_latency_s_per_token": e2e_s / answered,
        "queue_s": batch.first_scheduled_s - batch.arrival_s,
        "preempted_s": batch.preempted_s,
        "dispatch_delay_s": batch.dispatch_s - batch.arrival_s,
    }


def gaps_s(batch: Requests) -> tuple[FloatArray, IntArray]:
    """Every gap between two tokens of one request, and the row of that request."""
    same = batch.owner[1:] == batch.owner[:-1]
    gaps, owner = np.diff(batch.token_times_s)[same], batch.owner[1:][same]
    if (gaps < 0).any():
        raise ValueError(f"row {owner[np.argmax(gaps < 0)]} has token times that go backwards")
    return gaps, owner


def max_stall_s(batch: Requests) -> FloatArray:
    gaps, owner = gaps_s(batch)
    largest = np.full(batch.arrival_s.size, -np.inf)
    np.maximum.at(largest, owner, gaps)
    return np.where(np.isinf(largest), np.nan, largest)


def meets_slo(batch: Requests, values: Mapping[str, FloatArray], slo: Mapping[str, float]) -> BoolArray:
    """Finished, and within every limit given; an answer of one token has no TPOT to miss."""
    met = batch.finished & (batch.output_tokens > 0)
    for key, limit in slo.items():
        met &= (values[key] <= limit) | ((batch.output_tokens == 1) if key == "tpot_s" else False)
    return met


def tokens_on_time(batch: Requests, ttft_s: float, tpot_s: float) -> BoolArray:
    """Per token: was it there for a reader who starts `ttft_s` after asking and reads one token every `tpot_s`?

    Being early earns slack for later tokens; a stall is paid for until the engine has caught up.
    """
    on_time: BoolArray = batch.token_times_s <= batch.arrival_s[batch.owner] + ttft_s + batch.place * tpot_s
    return on_time


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
        for key, spread in self._spreads.items():
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
