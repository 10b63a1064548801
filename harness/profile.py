"""`harness profile`: what the ops of a model take on this machine, as a file that simulates it and predicts for it.

Here: the file put together. What is asked for and whether it can be is profile_request.py's; grid, visits, loop and
accuracy have modules of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from engines.core.profile_table import ProfileTable
from engines.core.types import Capabilities, TierCapacity
from harness.environment import allowed_cores, git_state, machine_facts, versions
from harness.profile_accuracy import accuracy_of
from harness.profile_dispatch import measure_dispatch
from harness.profile_file import Accuracy, Points, Profile, measurements, save_profile
from harness.profile_loop import measure_overhead
from harness.profile_points import points_of
from harness.profile_request import Request
from harness.profile_run import Samples, measure, rounds_of, thread_counts
from harness.sizing import HOST_PAGE_TOKENS

if TYPE_CHECKING:
    from engines.apex.attention import Pool

SPARE_SLOTS = 4  # chunks beside the most rows


def profile(request: Request, out: Path, say: Callable[[str], None]) -> Profile:
    """Measure, write, and hand over what was written."""
    found = measured(request, say)
    save_profile(out, found)
    return found


def measured(request: Request, say: Callable[[str], None]) -> Profile:
    from engines.backends.profile import StepRig
    from harness.real import open_model

    machine = machine_facts()  # its load is that of the others as long as nothing runs here
    bounds, shape = request.bounds, request.shape
    with _claimed(request) as pools:
        say(f"loading {request.model}")
        model = open_model(
            request.model, request.dtype, request.backend, 0, bounds.max_context + 1, bounds.max_batch_tokens
        )
        rig = StepRig(model, _capabilities(request), bounds.most_rows + SPARE_SLOTS, bounds.max_context + 1)
        samples, beside = measure(rig, pools, bounds, request.host_bounds, request.beside, say, request.rounds)
        dispatch = measure_dispatch(rig, pools[-1]) if pools else None
        overhead = measure_overhead(rig.executor, rig.clock, bounds).model_copy(update={"dispatch": dispatch})
        rig.close()

    def known(found: Samples) -> tuple[Points, Accuracy]:
        points = points_of(found, bounds, request.host_bounds)
        table = ProfileTable(measurements(points, overhead, shape.layers))
        return points, accuracy_of(found, table, bounds, shape.layers, request.host_bounds)

    points, accuracy = known(samples)
    points_beside, accuracy_beside = known(beside) if beside else (None, None)
    return Profile(
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        setting=request.setting(request.rounds or rounds_of(bounds)),
        machine=machine,
        versions=versions(),
        git_commit=git_state()[0],
        points=points,
        beside=points_beside,
        overhead=overhead,
        accuracy=accuracy,
        accuracy_beside=accuracy_beside,
    )


@contextmanager
def _claimed(request: Request) -> Iterator[list[Pool]]:
    """The accelerator's cores for this thread, the others for pools of more and more threads; given back in the end."""
    from engines.apex.attention import Pool
    from harness.real import claim_cores

    allowed = allowed_cores()
    spare = allowed[len(allowed) - request.host_threads :]
    if request.backend == "cpu":
        claim_cores(request.accel_cores)
    try:
        with ExitStack() as stack:
            yield [stack.enter_context(Pool(count, spare[:count])) for count in thread_counts(len(spare))]
    finally:
        os.sched_setaffinity(0, allowed)


def _capabilities(request: Request) -> Capabilities:
    per_token = request.kv_bytes_per_token
    pages, host_pages = request.bounds.kv_tokens // request.page_tokens, request.host_bounds.kv_tokens
    return Capabilities(
        layers=request.shape.layers,
        accel=TierCapacity(pages, request.page_tokens, request.page_tokens * per_token),
        host=TierCapacity(host_pages // HOST_PAGE_TOKENS, HOST_PAGE_TOKENS, HOST_PAGE_TOKENS * per_token),
        host_threads=max(1, request.host_threads),
        max_model_tokens=request.shape.max_positions,
    )
