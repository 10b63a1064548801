"""Synthetic run folders for tests: plausible columns, any number of requests, cells in every state, hostile names.

Figures follow simple laws with a fixed seed; nothing here is a claim about an engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from results.schema import CellSummary, Label, Manifest, Status
from results.store import RequestWriter, RunFolder, SampleWriter, StepWriter
from results.writers import Column

HOSTILE = "<script>alert(1)</script>"
WHEN = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

ENGINES = ("gpu_only", "neo", "apex")
WORKLOADS = ("chat", "long_output")

# The larger, the faster the synthetic engine.
SPEED = {"gpu_only": 1.0, "static_partition": 0.7, "neo": 1.12, "apex": 1.31}


@dataclass(frozen=True, slots=True)
class Shape:
    """What to build. `bad` gives cells another status than ok, by their id."""

    engines: Sequence[str] = ENGINES
    workloads: Sequence[str] = WORKLOADS
    repeats: int = 3
    requests: int = 40
    tokens: int = 12
    steps: int = 120
    name: str = "synthetic"
    label: Label = Label.EMULATED
    bad: Mapping[str, Status] = field(default_factory=dict)
    verdicts: Sequence[str] = ()

    @property
    def cells(self) -> list[tuple[str, str, int]]:
        return [
            (engine, workload, repeat)
            for workload in self.workloads
            for repeat in range(self.repeats)
            for engine in self.engines
        ]

    def cell_id(self, engine: str, workload: str, repeat: int) -> str:
        return f"e{self.engines.index(engine)}-w{self.workloads.index(workload)}-r{repeat}"


def build(out_dir: Path, shape: Shape | None = None) -> Path:
    """A complete run folder (but for its report)."""
    shape = shape or Shape()
    folder = RunFolder.create(out_dir, shape.name, WHEN)
    folder.write_manifest(manifest(shape))
    for index, (engine, workload, repeat) in enumerate(shape.cells):
        cell_id = shape.cell_id(engine, workload, repeat)
        write_cell(folder, shape, cell_id, engine, workload, repeat, seed=index)
    folder.write_run_summary(shape.verdicts)
    return folder.path


def manifest(shape: Shape) -> Manifest:
    return Manifest(
        name=shape.name,
        label=shape.label,
        backend="cpu",
        created_utc="2030-01-02T03:04:05Z",
        command="harness run --config quickstart.yaml --set measure.repeats=3",
        config={
            "name": shape.name,
            "model": "llama-2-7b",
            "hardware": "t4_g4dn_4xlarge",
            "budget": {"accel_memory_bytes": 15_676_630_630, "host_memory_bytes": 42_949_672_960, "cpu_threads": 7},
            "engines": list(shape.engines),
            "workloads": [{"kind": workload, "requests": shape.requests} for workload in shape.workloads],
            "measure": {"warmup_requests": 2, "repeats": shape.repeats, "order": "interleaved", "seed": 0},
        },
        machine={"cpu": "Xeon Platinum 8259CL", "cores": 8, "memory_bytes": 67_108_864_000, "gpu": {"name": "none"}},
        versions={"harness": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        git_commit="0123456789abcdef0123456789abcdef01234567",
        git_dirty=True,
        seeds=[0, 1, 2],
        cells_planned=tuple(shape.cell_id(*cell) for cell in shape.cells),
    )


def write_cell(
    folder: RunFolder, shape: Shape, cell_id: str, engine: str, workload: str, repeat: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    speed = SPEED.get(engine, 1.0) * random.normal(1.0, 0.015)
    status = shape.bad.get(cell_id, Status.OK)
    if status is Status.OK:
        cell_dir = folder.cell_dir(cell_id)
        with RequestWriter(cell_dir) as requests:
            requests.append_columns(request_columns(random, shape, speed))
        with StepWriter(cell_dir) as steps:
            steps.append_columns(step_columns(random, shape, engine, speed))
        with SampleWriter(cell_dir) as samples:
            samples.append_rows({"time_s": 0.1 * tick, "cpu_percent": 50.0 + tick} for tick in range(5))
    folder.write_cell_summary(summary(shape, cell_id, engine, workload, repeat, status, speed))


def summary(
    shape: Shape, cell_id: str, engine: str, workload: str, repeat: int, status: Status, speed: float = 1.0
) -> CellSummary:
    return CellSummary(
        cell_id=cell_id,
        engine=engine,
        workload=workload,
        backend="cpu",
        label=shape.label,
        repeat=repeat,
        status=status,
        metrics=_metrics(speed) if status is Status.OK else {},
        resolved={
            "accel_kv_blocks": 150,
            "host_kv_blocks": 0 if engine == "gpu_only" else 2048,
            "kv_bytes_per_block": 8_388_608,
            "cpu_threads": 7,
            "dtype": "float16",
            "max_batch": 256,
            "max_batch_tokens": 2048,
            "attention": {"accel": "torch sdpa", "host": "none" if engine == "gpu_only" else "avx512"},
        },
        notes=(f"workload clipped to 2400 tokens: 3 of {shape.requests} requests",),
        unavailable={"gpu_power_w": "no NVIDIA driver on this machine"},
        error="Traceback (most recent call last):\n  ...\nOutOfMemory: 9.1 GiB wanted, 8.0 GiB given"
        if status is Status.FAILED
        else None,
    )


def _metrics(speed: float) -> dict[str, float]:
    return {
        "output_tokens_per_s": 213.4 * speed,
        "requests_per_s": 1.017 * speed,
        "ttft_s_p50": 0.412 / speed,
        "ttft_s_p99": 2.19 / speed,
        "tpot_s_p50": 0.0431 / speed,
        "tpot_s_p99": 0.0917 / speed,
        "e2e_s_p50": 12.7 / speed,
        "preemptions": float(round(14 / speed)),
        "goodput_rps": 0.81 * speed,
    }


def request_columns(random: np.random.Generator, shape: Shape, speed: float) -> dict[str, Column]:
    """Poisson arrivals, gamma queueing, gaps around a mean; the last of more than ten requests is refused."""
    count, tokens = shape.requests, shape.tokens
    arrival = np.cumsum(random.exponential(0.9, count))
    first = arrival + random.gamma(2.0, 0.3 / speed, count)
    gaps = random.gamma(20.0, 0.043 / speed / 20, (count, tokens - 1))
    times = np.column_stack([first, first[:, None] + np.cumsum(gaps, axis=1)])
    last: list[object] = [*times[:, -1]]
    status, reason = ["finished"] * count, [""] * count
    if count > 10:
        status[-1], reason[-1], last[-1] = "refused", "longer than the model's context", None
    offsets = np.arange(0, count * tokens + 1, tokens, dtype=np.int32)
    return {
        "request_id": np.arange(count),
        "arrival_s": arrival,
        "dispatch_s": arrival + 1e-4,
        "first_scheduled_s": (arrival + first) / 2,
        "first_token_s": first,
        "last_token_s": last,
        "prompt_tokens": random.integers(20, 2000, count).astype(np.int32),
        "output_tokens": np.full(count, tokens, dtype=np.int32),
        "asked_tokens": np.full(count, tokens, dtype=np.int32),
        "preemptions": random.poisson(0.1, count).astype(np.int32),
        "preempted_s": np.zeros(count),
        "status": status,
        "reason": reason,
        "tier": ["accel" if index % 3 else "host" for index in range(count)],
        "warmup": np.arange(count) < 2,
        "token_times_s": pa.ListArray.from_arrays(offsets, times.ravel()),
    }


def step_columns(random: np.random.Generator, shape: Shape, engine: str, speed: float) -> dict[str, Column]:
    count = shape.steps
    lasted = random.gamma(20.0, 0.043 / speed / 20, count)
    ended = np.cumsum(lasted + 0.002)
    load = np.minimum(1.0, 4 * np.linspace(0, 1, count)) * np.minimum(1.0, 5 * np.linspace(1, 0, count))
    hybrid = 0.0 if engine == "gpu_only" else 1.0
    whole = {
        "decode_rows": 40 * load,
        "prefill_rows": random.integers(0, 2, count),
        "prefill_tokens": random.integers(0, 500, count),
        "running": (40 + 20 * hybrid) * load,
        "waiting": 5 * load,
        "accel_blocks_used": 150 * load,
        "host_blocks_used": hybrid * 900 * load,
        "ops": np.full(count, 130),
        "overruns": np.zeros(count),
        "preempted": np.zeros(count),
        "moved_tokens": np.zeros(count),
        "found_tokens": np.zeros(count),
    }
    return {
        "step": np.arange(count),
        "started_s": ended - lasted,
        "ended_s": ended,
        "mode": ["gpu"] * count,
        "gpu_busy_s": lasted * (0.71 + 0.15 * hybrid),
        "cpu_busy_s": lasted * 0.63 * hybrid,
        "h2d_busy_s": lasted * 0.08 * hybrid,
        "d2h_busy_s": lasted * 0.05 * hybrid,
        "disk_busy_s": np.zeros(count),
        "scheduler_s": np.full(count, 1.5e-4),
        "predicted_s": lasted * 1.04,
        **{name: np.asarray(values).astype(np.int32) for name, values in whole.items()},
    }
