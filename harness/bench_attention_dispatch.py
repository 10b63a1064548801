"""What one job of the pool costs beside its work, and what it costs a Python thread on another core."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engines.apex import attention
from engines.core.clock import stopwatch
from harness.environment import confined

JOBS = 2000
COLD_JOBS = 200
COLD_PAUSE_US = 2000  # longer than an idle thread spins
BUSY_S = 0.4
BUSY_ROUNDS = 7
BUSY_CONTEXT = 4096
JOBS_AHEAD = 8
PAGE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Times:
    """Median and 95th percentile, in microseconds."""

    submit_us: tuple[float, float]  # what the caller pays
    wake_us: tuple[float, float]  # from the call until the first thread begins
    return_us: tuple[float, float]  # from the last thread's end until wait() returns


@dataclass(frozen=True, slots=True)
class Dispatch:
    """`warm`: threads still spin; `asleep`: they sleep. With one core: the caller shares it with the pool."""

    threads: int
    own_core: bool  # of the calling thread
    warm: Times
    asleep: Times
    python_speed_beside_pool: float  # of a Python thread on a core of its own; median of ratios to it alone
    python_speed_low: float
    python_speed_high: float


def measure_dispatch(cores: Sequence[int], jobs: int = JOBS, rounds: int = BUSY_ROUNDS) -> Dispatch:
    """The calling thread keeps the first core, the pool has the others."""
    spare = list(cores[1:]) or list(cores)
    with confined(cores[:1]), attention.Pool(len(spare), spare) as pool:
        warm = _times(pool, jobs, 0)
        asleep = _times(pool, min(jobs, COLD_JOBS), COLD_PAUSE_US)
        ratios = [_busy_ratio(pool) for _ in range(rounds)] if len(cores) > 1 else [float("nan")]
    return Dispatch(
        threads=len(spare),
        own_core=len(cores) > 1,
        warm=warm,
        asleep=asleep,
        python_speed_beside_pool=float(np.median(ratios)),
        python_speed_low=min(ratios),
        python_speed_high=max(ratios),
    )


def dispatch_lines(found: Dispatch) -> Iterator[str]:
    for name, times in (("spinning", found.warm), ("sleeping", found.asleep)):
        yield (
            f"a job to {found.threads} {name} threads: submit {_pair(times.submit_us)} us, first thread begins after "
            f"{_pair(times.wake_us)} us, wait returns {_pair(times.return_us)} us after the last one (median, p95)"
        )
    if found.own_core:
        yield (
            f"a busy Python thread on its own core while the pool attends: {found.python_speed_beside_pool:.3f} of its "
            f"speed alone ({found.python_speed_low:.3f}-{found.python_speed_high:.3f})"
        )


def _times(pool: attention.Pool, jobs: int, pause_us: int) -> Times:
    call = _Call(rows=1, context=1)
    pool.time_dispatch(*call.arguments, 50, pause_us)
    times_us = np.array(pool.time_dispatch(*call.arguments, jobs, pause_us)) * 1e6
    median, high = np.percentile(times_us, [50, 95], axis=0)
    pairs = [(float(a), float(b)) for a, b in zip(median, high, strict=True)]
    return Times(pairs[0], pairs[1], pairs[2])


def _busy_ratio(pool: attention.Pool) -> float:
    """Loops per second of this thread with the pool busy, as a share of those with it idle."""
    alone = _loops_per_s()
    stop = threading.Event()
    call = _Call(rows=8, context=BUSY_CONTEXT)

    def keep_busy() -> None:
        # Several at once: this thread gets the interpreter back only every few milliseconds.
        while not stop.is_set():
            tickets = [pool.submit_decode_attention(*call.arguments) for _ in range(JOBS_AHEAD)]
            pool.wait(tickets[-1])

    feeder = threading.Thread(target=keep_busy)
    feeder.start()
    try:
        beside = _loops_per_s()
    finally:
        stop.set()
        feeder.join()
    return beside / alone


def _loops_per_s() -> float:
    begin_s, loops, total = stopwatch(), 0, 0
    while stopwatch() - begin_s < BUSY_S:
        for number in range(1000):
            total += number * loops
        loops += 1
    return loops / (stopwatch() - begin_s)


class _Call:
    """Arguments of one job."""

    def __init__(self, rows: int, context: int) -> None:
        pages = -(-context // PAGE_TOKENS)
        store = torch.randn(rows * pages, 8, PAGE_TOKENS, 128).half()
        table = torch.arange(rows * pages, dtype=torch.int32).view(rows, pages)
        query = torch.randn(rows, 8, 128).half()
        self.arguments = (
            query,
            store,
            store,
            table,
            torch.full((rows,), context, dtype=torch.int32),
            torch.empty_like(query),
            128**-0.5,
        )


def _pair(values: tuple[float, float]) -> str:
    return f"{values[0]:.1f}, {values[1]:.1f}"
