"""What happened in each step: the rows of steps.parquet, their sums, and a timeline that a browser can show.

The driver fills in a StepObservation per step. Writing parquet belongs to the results store; what the sums mean is in
metric_catalogue.py. A timeline opens in https://ui.perfetto.dev or chrome://tracing, one lane per unit.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from results.files import write_text

FloatArray = npt.NDArray[np.float64]

LANES = ("GPU", "CPU", "H2D", "D2H", "DISK")
BUSY_COLUMNS = tuple(f"{lane.lower()}_busy_s" for lane in LANES)


class StepObservation(NamedTuple):  # two dozen fields, for every step
    """One row of steps.parquet; times on the run's clock."""

    step: int
    started_s: float
    ended_s: float
    mode: str = ""
    decode_rows: int = 0
    prefill_rows: int = 0
    prefill_tokens: int = 0
    running: int = 0
    waiting: int = 0
    accel_blocks_used: int = 0
    host_blocks_used: int = 0
    gpu_busy_s: float = 0.0
    cpu_busy_s: float = 0.0
    h2d_busy_s: float = 0.0
    d2h_busy_s: float = 0.0
    disk_busy_s: float = 0.0
    scheduler_s: float = 0.0
    predicted_s: float | None = None
    ops: int = 0
    overruns: int = 0
    preempted: int = 0
    moved_tokens: int = 0
    found_tokens: int = 0


@dataclass(frozen=True, slots=True)
class OpSpan:
    """One op as it ran; `unit` is one of LANES."""

    unit: str
    name: str
    start_s: float
    end_s: float
    step: int


def step_columns(observations: Iterable[StepObservation]) -> dict[str, list[Any]]:
    """The columns of steps.parquet, in the order of the fields."""
    rows = list(observations)
    return {name: [getattr(row, name) for row in rows] for name in StepObservation._fields}


def union_of(intervals_s: FloatArray) -> FloatArray:
    """[k, 2] start and end -> the same time as disjoint, sorted intervals."""
    if not len(intervals_s):
        return intervals_s
    ordered = intervals_s[np.argsort(intervals_s[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    opens = np.r_[True, ordered[1:, 0] > reach[:-1]]
    closes = np.r_[opens[1:], True]
    return np.column_stack([ordered[opens, 0], reach[closes]])


def busy_seconds(ops: Iterable[OpSpan]) -> dict[str, float]:
    """The busy columns of one step: time in which a unit ran at least one op (two at once count once)."""
    intervals: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for op in ops:
        intervals[op.unit].append((op.start_s, op.end_s))
    lengths = {unit: float(np.diff(union_of(np.array(pairs))).sum()) for unit, pairs in intervals.items()}
    return {column: lengths.get(lane, 0.0) for lane, column in zip(LANES, BUSY_COLUMNS, strict=True)}


# --- sums -------------------------------------------------------------------------------------------------------------

STEP_COLUMNS = {  # the columns that are summed, and what a missing one counts as
    "started_s": math.nan,
    "ended_s": math.nan,
    "predicted_s": math.nan,
    **dict.fromkeys(BUSY_COLUMNS, 0.0),
    **dict.fromkeys(("running", "waiting", "decode_rows", "accel_blocks_used", "host_blocks_used"), 0.0),
    **dict.fromkeys(("scheduler_s", "ops", "overruns", "moved_tokens", "found_tokens"), 0.0),
}
SUMMED = (*BUSY_COLUMNS, "scheduler_s", "ops", "overruns", "moved_tokens", "found_tokens")
PEAKS = {
    "running_batch_max": "running",
    "waiting_max": "waiting",
    "accel_blocks_peak": "accel_blocks_used",
    "host_blocks_peak": "host_blocks_used",
}


@dataclass(slots=True)
class StepTotals:
    """Running sums over steps, from which the machine's figures follow; its size does not depend on their number."""

    steps: int = 0
    first_s: float = math.inf
    last_s: float = -math.inf
    took_s: float = 0.0
    hidden_s: float = 0.0  # work that is shown to have run beside other work
    hideable_s: float = 0.0  # work that could have
    predicted_s: float = 0.0
    observed_s: float = 0.0  # of the steps that had a prediction
    running_x_s: float = 0.0
    decode_rows_x_s: float = 0.0
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    peaks: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, steps: Mapping[str, FloatArray]) -> None:
        """Columns named as in STEP_COLUMNS, at least one row."""
        took_s = steps["ended_s"] - steps["started_s"]
        busy_s = np.column_stack([steps[name] for name in BUSY_COLUMNS])
        serial_s, longest_s = busy_s.sum(axis=1), busy_s.max(axis=1)
        predicted = ~np.isnan(steps["predicted_s"])
        self.steps += took_s.size
        self.first_s = min(self.first_s, float(steps["started_s"].min()))
        self.last_s = max(self.last_s, float(steps["ended_s"].max()))
        self.took_s += float(took_s.sum())
        # One unit after the other the step would have taken serial_s; at best it takes longest_s.
        self.hidden_s += float(np.clip(serial_s - took_s, 0, serial_s - longest_s).sum())
        self.hideable_s += float((serial_s - longest_s).sum())
        self.predicted_s += float(steps["predicted_s"][predicted].sum())
        self.observed_s += float(took_s[predicted].sum())
        self.running_x_s += float(steps["running"] @ took_s)
        self.decode_rows_x_s += float(steps["decode_rows"] @ took_s)
        for name in SUMMED:
            self.sums[name] += float(steps[name].sum())
        for key, name in PEAKS.items():
            self.peaks[key] = max(self.peaks[key], float(steps[name].max()))

    def figures(self, serving_s: float, pending_s: float) -> dict[str, float]:
        """`serving_s`: first arrival to the end; `pending_s`: the part with a request in the system. NaN: undefined."""
        sums = self.sums
        gpu_side_s, cpu_side_s = sums["gpu_busy_s"] + sums["h2d_busy_s"], sums["cpu_busy_s"]
        return {
            "steps": float(self.steps),
            **self.peaks,
            **{name.replace("_busy_s", "_busy_share"): _share(sums[name], serving_s) for name in BUSY_COLUMNS},
            "bubble_share": _share(max(0.0, pending_s - sums["gpu_busy_s"]), serving_s),
            "idle_share": _share(serving_s - pending_s, serving_s),
            "overlap_efficiency": _share(self.hidden_s, self.hideable_s),
            "scheduler_share": _share(sums["scheduler_s"], serving_s),
            "running_batch_mean": _share(self.running_x_s, self.took_s),
            "decode_rows_mean": _share(self.decode_rows_x_s, self.took_s),
            "overrun_share": _share(sums["overruns"], sums["ops"]),
            "prediction_ratio": _share(self.predicted_s, self.observed_s),
            "moved_tokens": sums["moved_tokens"],
            "found_tokens": sums["found_tokens"],
            "load_gpu_s": gpu_side_s,
            "load_cpu_s": cpu_side_s,
            "load_imbalance": _share(abs(gpu_side_s - cpu_side_s), gpu_side_s + cpu_side_s),
        }


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


# --- the timeline -----------------------------------------------------------------------------------------------------


def trace_events(ops: Iterable[OpSpan]) -> list[dict[str, Any]]:
    """Chrome trace events, times in microseconds. Ops of one unit that overlap go to a second lane of it, and so on.

    The viewers take spans on one track that overlap without nesting for broken and drop some.
    """
    tracks: dict[tuple[str, int], int] = {}
    free_at_s: dict[str, list[float]] = {lane: [] for lane in LANES}
    events: list[dict[str, Any]] = []
    for op in sorted(ops, key=lambda op: (op.start_s, op.end_s)):
        if op.unit not in free_at_s:
            raise ValueError(f"op {op.name} ran on {op.unit}; a timeline has the lanes {', '.join(LANES)}")
        lane = _free_lane(free_at_s[op.unit], op)
        track = tracks.setdefault((op.unit, lane), 100 * LANES.index(op.unit) + lane)
        times_us = {"ts": op.start_s * 1e6, "dur": (op.end_s - op.start_s) * 1e6}
        events.append({"name": op.name, "ph": "X", "pid": 1, "tid": track, **times_us, "args": {"step": op.step}})
    return [event for (unit, lane), track in tracks.items() for event in _track_names(unit, lane, track)] + events


def _free_lane(free_at_s: list[float], op: OpSpan) -> int:
    for lane, end_s in enumerate(free_at_s):
        if end_s <= op.start_s + 1e-9:  # rounding of neighbours is no overlap
            free_at_s[lane] = op.end_s
            return lane
    free_at_s.append(op.end_s)
    return len(free_at_s) - 1


def _track_names(unit: str, lane: int, track: int) -> Sequence[dict[str, Any]]:
    name = unit if lane == 0 else f"{unit} {lane + 1}"
    common = {"ph": "M", "pid": 1, "tid": track}
    return [
        {**common, "name": "thread_name", "args": {"name": name}},
        {**common, "name": "thread_sort_index", "args": {"sort_index": track}},
    ]


def write_trace(path: Path, ops: Iterable[OpSpan], *, title: str, label: str) -> None:
    """A JSON file for the viewer; `label` says measured, emulated or simulated."""
    process = {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": f"{title} ({label})"}}
    trace = {"traceEvents": [process, *trace_events(ops)], "displayTimeUnit": "ms", "otherData": {"label": label}}
    write_text(path, json.dumps(trace, allow_nan=False, separators=(",", ":")))
