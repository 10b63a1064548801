"""Latency distributions of many requests in little memory: times are counted into narrow bins as they stream by.

The bins are 0.6 % wide, finer than a line on a figure, so no single time is kept. Definitions are those that the report
prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from results.store import iter_requests

Floats = npt.NDArray[np.float64]

_SHORTEST_S = 1e-6
_BINS_PER_DECADE = 400
_BINS = 11 * _BINS_PER_DECADE  # 1 µs to 100,000 s

CURVE_POINTS = 300

# Only these columns are read: the rest of a long run would be carried for nothing.
_COLUMNS = (
    "arrival_s",
    "first_token_s",
    "last_token_s",
    "output_tokens",
    "status",
    "reason",
    "warmup",
    "token_times_s",
)


@dataclass(frozen=True, slots=True)
class Curve:
    """A cumulative distribution: `share[i]` of the values are at most `seconds[i]`."""

    seconds: Floats
    share: Floats

    def percentile(self, share: float) -> float:
        return float(self.seconds[np.searchsorted(self.share, share - 1e-12)])


@dataclass(slots=True)
class Distribution:
    """Counts of times in bins of equal ratio."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, dtype=np.int64))

    def add(self, seconds: Floats) -> None:
        seconds = seconds[np.isfinite(seconds)]
        if len(seconds):
            position = np.log10(np.maximum(seconds, _SHORTEST_S) / _SHORTEST_S) * _BINS_PER_DECADE
            self.counts += np.bincount(np.clip(position.astype(np.int64), 0, _BINS - 1), minlength=_BINS)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def curve(self, points: int = CURVE_POINTS) -> Curve | None:
        """Every bin that holds something, thinned to equal steps of share where there are too many; ends are kept."""
        filled = np.flatnonzero(self.counts)
        if not len(filled):
            return None
        share = np.cumsum(self.counts[filled]) / self.total
        if len(filled) > points:
            levels = np.linspace(share[0], 1.0, points)
            chosen = np.unique(np.searchsorted(share, levels - 1e-12))
            filled, share = filled[chosen], share[chosen]
        middle = _SHORTEST_S * 10 ** ((filled + 0.5) / _BINS_PER_DECADE)
        return Curve(middle.astype(np.float64), share.astype(np.float64))


@dataclass(slots=True)
class Latencies:
    """What the requests of one engine on one workload saw, all repeats pooled, warm-up left out."""

    ttft: Distribution = field(default_factory=Distribution)
    tpot: Distribution = field(default_factory=Distribution)
    itl: Distribution = field(default_factory=Distribution)
    requests: int = 0
    unfinished: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add_cell(self, cell_dir: Path) -> None:
        for batch in iter_requests(cell_dir, _COLUMNS):
            self._add(batch)

    def _add(self, batch: pa.RecordBatch) -> None:
        self.requests += batch.num_rows
        batch = batch.filter(pc.invert(batch["warmup"]))
        finished = pc.equal(batch["status"], "finished")
        for status, reason in _unfinished(batch.filter(pc.invert(finished))):
            self.unfinished[status, reason] += 1
        batch = batch.filter(finished)
        first, last = _floats(batch["first_token_s"]), _floats(batch["last_token_s"])
        tokens = batch["output_tokens"].to_numpy(zero_copy_only=False)
        several = tokens > 1
        self.ttft.add(first - _floats(batch["arrival_s"]))
        self.tpot.add((last - first)[several] / (tokens[several] - 1))
        self.itl.add(_gaps(batch["token_times_s"]))


def _unfinished(batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    return zip(batch["status"].to_pylist(), batch["reason"].to_pylist(), strict=True)


def _floats(column: pa.Array) -> Floats:
    """Nulls as NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _gaps(token_times: pa.ListArray) -> Floats:
    """Every gap between neighbouring tokens of the same request."""
    times = _floats(pc.list_flatten(token_times))
    owner = pc.list_parent_indices(token_times).to_numpy(zero_copy_only=False)
    gaps: Floats = np.diff(times)[np.diff(owner) == 0]
    return gaps
