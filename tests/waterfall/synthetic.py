"""Cells written by hand: step and request tables of which every number is known, or drawn without regard to sense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from results.operator_rows import OperatorRow
from results.schema import CellSummary, Label, Status
from results.store import RequestWriter, StepWriter, write_json

STEP: Mapping[str, Any] = {
    "mode": "gpu_only",
    "prefill_rows": 0,
    "prefill_tokens": 0,
    "running": 1,
    "waiting": 0,
    "accel_blocks_used": 1,
    "host_blocks_used": 0,
    "cpu_busy_s": 0.0,
    "h2d_busy_s": 0.0,
    "d2h_busy_s": 0.0,
    "disk_busy_s": 0.0,
    "scheduler_s": 0.0,
    "predicted_s": None,
    "ops": 1,
    "overruns": 0,
    "preempted": 0,
    "moved_tokens": 0,
    "found_tokens": 0,
}
REQUEST: Mapping[str, Any] = {
    "prompt_tokens": 4,
    "preemptions": 0,
    "preempted_s": 0.0,
    "status": "finished",
    "reason": "",
    "tier": "accel",
    "warmup": False,
    "token_times_s": [],
}


def write_cell(
    folder: Path,
    steps: Sequence[Mapping[str, Any]],
    requests: Sequence[tuple[float, float]],
    metrics: Mapping[str, float],
    operators: Sequence[OperatorRow] = (),
) -> Path:
    """`requests`: arrival and last token of each, a token a second."""
    folder.mkdir()
    with RequestWriter(folder) as writer:
        writer.append_rows(
            {
                **REQUEST,
                "request_id": at,
                "arrival_s": arrival_s,
                "dispatch_s": arrival_s,
                "first_scheduled_s": arrival_s,
                "first_token_s": last_s,
                "last_token_s": last_s,
                "output_tokens": 4,
                "asked_tokens": 4,
            }
            for at, (arrival_s, last_s) in enumerate(requests)
        )
    with StepWriter(folder) as step_writer:
        step_writer.append_rows({**STEP, "step": at, **step} for at, step in enumerate(steps))
    summary = CellSummary(
        folder.name, "e", "w", "sim", Label.SIMULATED, 0, Status.OK, metrics, operators=tuple(operators)
    )
    write_json(folder / "summary.json", summary.to_json())
    return folder


def drawn_cell(folder: Path, seed: int) -> Path:
    """Steps that overlap, units busier than their step, empty steps, a window that cuts steps: nothing may be lost."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 60))
    started = np.cumsum(random.exponential(1.0, count))
    steps = []
    for start_s in started:
        took_s = float(random.exponential(0.8))
        busy = {f"{unit}_busy_s": took_s * float(random.choice([0, 0.3, 1.0, 1.4])) for unit in UNITS}
        counts = {name: int(random.choice([0, 1, 7, 300])) for name in COUNTS}
        mode = str(random.choice(["gpu_only", "asymmetric", "async_overlap"]))
        steps.append({"started_s": start_s, "ended_s": start_s + took_s, "mode": mode, **busy, **counts})
    arrivals = np.sort(random.uniform(0, started[-1], 5))
    requests = [(float(at_s), float(at_s + random.exponential(9.0))) for at_s in arrivals]
    if random.random() < 0.5:
        rates = {
            "window_is_plateau": 1.0,
            "window_start_s": float(started[0]),
            "window_s": float(random.uniform(0.1, 30)),
        }
        metrics = {**rates, "output_tokens_per_s": 7.0, "output_tokens_per_s_whole_run": 5.0}
    else:
        metrics = {"output_tokens_per_s_whole_run": float(random.uniform(0.1, 100))}
    operators = [OperatorRow("attention", "GPU", 3, 1.0, 5.0), OperatorRow("qkv", "GPU", 3, float(seed), 5.0)]
    return write_cell(folder, steps, requests, metrics, operators if random.random() < 0.7 else ())


UNITS = ("gpu", "cpu", "h2d", "d2h", "disk")
COUNTS = (
    "decode_rows",
    "prefill_tokens",
    "accel_blocks_used",
    "host_blocks_used",
    "moved_tokens",
    "running",
    "waiting",
)
