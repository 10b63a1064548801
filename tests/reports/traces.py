"""Traces as a cell leaves them, of ops given as (lane, name, step, start, end) in seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

OpTuple = tuple[str, str, int, float, float]

LANES = ("GPU", "CPU", "H2D", "D2H")


def write_trace(cell_dir: Path, ops: Sequence[OpTuple]) -> None:
    tracks = {lane: 100 * place for place, lane in enumerate(LANES)}
    used = dict.fromkeys(lane for lane, *_ in ops)
    names = [{"name": "thread_name", "ph": "M", "pid": 1, "tid": tracks[lane], "args": {"name": lane}} for lane in used]
    events = [
        {
            "name": name,
            "ph": "X",
            "pid": 1,
            "tid": tracks[lane],
            "ts": start_s * 1e6,
            "dur": (end_s - start_s) * 1e6,
            "args": {"step": step},
        }
        for lane, name, step, start_s, end_s in ops
    ]
    (cell_dir / "trace.json").write_text(json.dumps({"traceEvents": [*names, *events]}), encoding="utf-8")


def decode_steps(count: int, layers: int = 4, length_s: float = 0.01) -> list[OpTuple]:
    """Steps numbered from 1 on the GPU alone, each of `layers` pairs of attention and linear layers."""
    each = length_s / (2 * layers)
    return [
        ("GPU", f"{name} {layer}", step + 1, start, start + each)
        for step in range(count)
        for layer in range(layers)
        for part, name in enumerate(("attention", "between"))
        for start in [step * length_s * 1.1 + (2 * layer + part) * each]
    ]
