"""What the loop that serves adds between two steps: scheduler, commit, journal, records. Measured by serving.

The real loop over the real executor: Python that runs between the ops of a model finds the caches taken, and is several
times slower than alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from engines.core.clock import Clock
from engines.core.executor import Executor
from engines.core.scheduler import EngineCore
from engines.core.types import Limits
from engines.gpu_only.policy import GpuOnly
from harness.adapter import CoreAdapter
from harness.arrival_source import ArrivalSource
from harness.cell import Records
from harness.collectors.steps import StepObservation
from harness.driver import serve
from harness.journal import Journal
from harness.profile_file import CountPoint, Overhead
from harness.profile_grid import Bounds, ladder
from harness.profile_points import counted
from harness.recorder import RequestRecorder, StepRecorder
from workloads import build

PROMPT_TOKENS = 4
STEPS, QUICK_STEPS = 16, 8
ROUNDS = 2
MOST_ROWS = 64  # a line goes on


def measure_overhead(executor: Executor, clock: Clock, bounds: Bounds) -> Overhead:
    """The executor's requests are its own until here: this registers and forgets others of the same ids."""
    gaps_s: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for rows in ladder(1, min(MOST_ROWS, bounds.most_rows), 4.0):
            gaps_s.setdefault(rows, []).extend(_gaps(executor, clock, rows, QUICK_STEPS if bounds.quick else STEPS))
    gaps = counted(gaps_s)
    step_s, token_s = line_through(gaps)
    return Overhead(step_s=step_s, token_s=token_s, gaps=gaps)


def line_through(gaps: Sequence[CountPoint]) -> tuple[float, float]:
    """Fixed part and part per row, by the median of the slopes: one batch size that was disturbed bends nothing."""
    slopes = [(above.median_s - below.median_s) / (above.count - below.count) for below, above in combinations(gaps, 2)]
    slope = max(0.0, float(np.median(slopes))) if slopes else 0.0
    return max(0.0, float(np.median([gap.median_s - slope * gap.count for gap in gaps]))), slope


def _gaps(executor: Executor, clock: Clock, rows: int, steps: int) -> list[float]:
    """Seconds between the steps of one batch that decodes together."""
    core = EngineCore(GpuOnly(), executor.capabilities, Limits(rows, max(rows, PROMPT_TOKENS * rows)), None)
    workload = build({"kind": "batch", "batch": rows, "prompt": PROMPT_TOKENS, "output": steps}, 0)
    prompts = {request.request_id: range(1, 1 + PROMPT_TOKENS) for request in workload.requests}
    seen: list[StepObservation] = []
    with TemporaryDirectory(prefix="harness-profile-") as folder:
        records = Records(Path(folder), None)

        def keep(step: StepObservation) -> None:
            records.step(step)
            seen.append(step)

        journal = Journal(Path(folder) / "journal")
        adapter = CoreAdapter(core, executor, {}, journal, [StepRecorder(keep)])
        clock.restart()
        serve(adapter, ArrivalSource(workload), clock, RequestRecorder(records.request, 0), prompts)
        records.close()
        journal.close()
    return [after.started_s - before.ended_s for before, after in pairwise(seen) if before.decode_rows == rows]
