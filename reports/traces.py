"""A few steps out of a cell's trace: every op with its lane, start and end. Reads Chrome trace events (trace.json).

Only a trace of ours is understood in full; events of other shapes are passed over, because the page must survive them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from results.errors import ResultsError
from results.files import read_json

TRACE_FILE = "trace.json"
FEWEST_STEPS, MOST_STEPS = 3, 6
UNEVEN = 6
OPS_SHOWN = 200  # about as many blocks as can be told apart
LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Op:
    """One op as it ran; times in seconds on the cell's clock."""

    track: int
    name: str
    step: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Consecutive steps and their ops. `lanes` names the tracks in use, in the trace's order."""

    steps: tuple[int, ...]
    ops: tuple[Op, ...]
    lanes: Mapping[int, str]
    traced: tuple[int, int]  # first and last step of the whole trace

    @property
    def start_s(self) -> float:
        return min(op.start_s for op in self.ops)

    @property
    def end_s(self) -> float:
        return max(op.end_s for op in self.ops)

    def step_start_s(self, step: int) -> float:
        return min(op.start_s for op in self.ops if op.step == step)


def read_excerpt(cell_dir: Path) -> Excerpt | None:
    """None when the cell left no trace, or an empty one."""
    path = cell_dir / TRACE_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > LARGEST_BYTES:
        raise ResultsError(f"{path}: larger than {LARGEST_BYTES >> 20} MiB: open it in a trace viewer")
    data = read_json(path)
    events = data.get("traceEvents") if isinstance(data, Mapping) else None
    if not isinstance(events, list):
        raise ResultsError(f"{path}: has no list of traceEvents")
    by_step: dict[int, list[Op]] = {}
    for op in _ops(events):
        by_step.setdefault(op.step, []).append(op)
    if not by_step:
        return None
    each = sum(len(ops) for ops in by_step.values()) // len(by_step)
    chosen = _window(by_step, min(max(OPS_SHOWN // max(each, 1), FEWEST_STEPS), MOST_STEPS))
    ops = tuple(sorted((op for step in chosen for op in by_step[step]), key=lambda op: (op.track, op.start_s)))
    names = _track_names(events)
    lanes = {track: names.get(track, str(track)) for track in sorted({op.track for op in ops})}
    return Excerpt(chosen, ops, lanes, (min(by_step), max(by_step)))


def _window(by_step: Mapping[int, Sequence[Op]], size: int) -> tuple[int, ...]:
    """The window nearest the middle of the trace among those in which the most lanes worked: overlap is what to see.

    Where there is a choice, not one whose longest step leaves no room for the others.
    """
    order = sorted(by_step)
    size = min(size, len(order))
    middle = (len(order) - size) / 2

    lasted = {step: max(op.end_s for op in ops) - min(op.start_s for op in ops) for step, ops in by_step.items()}

    def rank(first: int) -> tuple[int, bool, float]:
        steps = order[first : first + size]
        lanes = {op.track for step in steps for op in by_step[step]}
        uneven = max(lasted[step] for step in steps) > UNEVEN * min(lasted[step] for step in steps)
        return -len(lanes), uneven, abs(first - middle)

    first = min(range(len(order) - size + 1), key=rank)
    return tuple(order[first : first + size])


def _ops(events: Sequence[object]) -> Iterator[Op]:
    for event in events:
        if not isinstance(event, Mapping) or event.get("ph") != "X":
            continue
        arguments = event.get("args")
        step = arguments.get("step") if isinstance(arguments, Mapping) else None
        track, start, lasted = event.get("tid"), _number(event.get("ts")), _number(event.get("dur"))
        if isinstance(step, int) and isinstance(track, int) and start is not None and lasted is not None:
            yield Op(track, str(event.get("name", "")), step, start / 1e6, (start + max(lasted, 0.0)) / 1e6)


def _track_names(events: Sequence[object]) -> dict[int, str]:
    names = {}
    for event in events:
        if isinstance(event, Mapping) and event.get("ph") == "M" and event.get("name") == "thread_name":
            track, arguments = event.get("tid"), event.get("args")
            if isinstance(track, int) and isinstance(arguments, Mapping):
                names[track] = str(arguments.get("name", track))
    return names


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
