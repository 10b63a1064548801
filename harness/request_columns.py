"""Request and step records as columns, and the formulas that give one value per request. No sums: metrics.py has those.

Records come as mappings, as objects with attributes, or as columns (mapping, pandas, arrow), named as on disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.openai.faults import Fault

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Records = Iterable[Any] | Mapping[str, Sequence[Any]]

FAULTS = frozenset(fault.value for fault in Fault)


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
    on_host: BoolArray  # where most of its tokens attended
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
            on_host=np.array(rows.raw("tier", ""), dtype=np.str_) == "host",
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
