"""Opens engines of their own: tells them where they are and what the envelope is, and takes their steps down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from engines.core.adapter import EngineAdapter, EngineStep, Served, Site
from engines.core.clock import Clock, MonotonicClock, VirtualClock
from engines.plugins import one_line, raised
from engines.registry import make_engine
from harness.collectors.steps import StepObservation
from harness.plan import CellSpec
from harness.sizing import host_threads, size

WEIGHT_SEED = 0  # every cell of a run serves the same model
_folders: list[TemporaryDirectory[str]] = []  # they go with the process


@dataclass(frozen=True, slots=True)
class Opened:
    engine: Served
    adapter: EngineAdapter
    clock: Clock


def served_problems(spec: CellSpec) -> list[str]:
    """Why the engine cannot run in this experiment, one line each."""
    engine: Served = make_engine(spec.engine.kind, spec.engine.options)
    paced = spec.backend == "cpu" and spec.emulation.mode == "paced"
    try:
        with redirect_stdout(sys.stderr):
            problems = [one_line(problem) for problem in engine.problems(spec.backend, paced)]
    except Exception as error:  # a third party's code, and nothing has been started
        problems = [f"its problems() raised {raised(error)}; upgrade or remove it"]
    return [f"engine {spec.engine.name}: {problem}" for problem in problems]


def open_served(
    spec: CellSpec,
    scratch: Path,
    longest_request_tokens: int,
    next_arrival_s: Callable[[], float | None] = lambda: None,
    step_sink: Callable[[StepObservation], None] = lambda step: None,
) -> Opened:
    engine: Served = make_engine(spec.engine.kind, spec.engine.options)
    sizing = size(spec)
    clock: Clock = VirtualClock() if spec.backend == "sim" else MonotonicClock()
    kv_bytes = sizing.kv_bytes_per_token * sizing.accel_kv_tokens
    site = Site(
        backend=spec.backend,
        clock=clock,
        model=spec.model,
        model_folder=_model_folder(spec),
        dtype=spec.dtype,
        accel_kv_tokens=sizing.accel_blocks * sizing.accel_page_tokens,
        accel_page_tokens=sizing.accel_page_tokens,
        kv_bytes_per_token=sizing.kv_bytes_per_token,
        accel_memory_bytes=sizing.weight_bytes + sizing.workspace_bytes + kv_bytes,
        max_batch=spec.budget.max_batch,
        max_batch_tokens=spec.budget.max_batch_tokens,
        longest_request_tokens=longest_request_tokens,
        accel_cores=spec.budget.accel_cores,
        host_threads=host_threads(spec),
        scratch=scratch,
        next_arrival_s=next_arrival_s,
        on_step=_StepSink(step_sink),
    )
    return Opened(engine, engine.open(site), clock)


class _StepSink:
    """Numbers the steps that an engine tells of, in the form of ours."""

    def __init__(self, sink: Callable[[StepObservation], None]) -> None:
        self._sink = sink
        self._step = 0

    def __call__(self, step: EngineStep) -> None:
        self._step += 1
        self._sink(
            StepObservation(
                step=self._step,
                started_s=step.started_s,
                ended_s=step.ended_s,
                mode="engine's own",
                decode_rows=step.decode_rows,
                prefill_rows=step.prefill_rows,
                prefill_tokens=step.prefill_tokens,
                running=step.running,
                waiting=step.waiting,
                accel_blocks_used=step.accel_blocks_used,
                scheduler_s=step.scheduler_s,
                gpu_busy_s=step.accel_s,
                preempted=step.preempted,
            )
        )


def _model_folder(spec: CellSpec) -> Callable[[], Path]:
    """The model as files: the user's own folder, or the seeded weights of a shape in one that goes with the process."""

    @cache
    def folder() -> Path:
        if Path(spec.model).is_dir():
            return Path(spec.model)
        from engines.model.config import load_config
        from engines.model.weights import random_weights, save_folder
        from harness.real import DTYPES

        written, config = temporary_folder("weights"), load_config(spec.model)
        save_folder(written, config, random_weights(config, WEIGHT_SEED, DTYPES[spec.dtype]))
        return written

    return folder


def temporary_folder(what: str) -> Path:
    _folders.append(TemporaryDirectory(prefix=f"harness-{what}-"))
    return Path(_folders[-1].name)
