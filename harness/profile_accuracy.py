"""How well the table predicts what it has not seen: held-out steps, op by op and as a whole.

Attention is judged together with the linear op after it, as they are priced together (profile_points.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engines.core.cost import CostTable
from harness.profile_file import Accuracy, HeldOut
from harness.profile_grid import Bounds, Shape, held_out, host_held_out
from harness.profile_points import ATTENTION, BETWEEN, FIRST, LAST, of

if TYPE_CHECKING:
    from engines.backends.profile import OpSeconds
    from harness.profile_run import Samples

STEP, HOST = "step", "host attention"
GOAL_MEDIAN, GOAL_P95 = 0.05, 0.15


def accuracy_of(
    samples: Samples, table: CostTable, bounds: Bounds, layers: int, host_bounds: Bounds | None = None
) -> Accuracy:
    """Over all parts; whole steps are listed, but would count everything twice."""
    found = [each for shape in held_out(bounds) for each in _held_out(shape, samples.steps[shape], table, layers)]
    found += _host_held_out(samples, table, host_bounds or bounds)
    median, p95 = errors([each for each in found if each.what != STEP])
    return Accuracy(median_error=median, p95_error=p95, held_out=tuple(found))


def errors(found: Sequence[HeldOut]) -> tuple[float, float]:
    """Median and 95th percentile of the relative errors."""
    median, p95 = np.percentile([each.error for each in found], [50, 95]).tolist()
    return median, p95


def lines(accuracy: Accuracy, where: str = "alone") -> Iterator[str]:
    """For a terminal: a line per part of a step."""
    kinds = dict.fromkeys(each.what for each in accuracy.held_out)
    for kind in kinds:
        median, p95 = errors([each for each in accuracy.held_out if each.what == kind])
        yield f"held out, {where}, {kind}: median error {median:.1%}, p95 {p95:.1%}"
    yield (
        f"held out, {where}, all parts: median error {accuracy.median_error:.1%} (goal {GOAL_MEDIAN:.0%}), "
        f"p95 {accuracy.p95_error:.1%} (goal {GOAL_P95:.0%})"
    )


def _held_out(shape: Shape, runs: Sequence[OpSeconds], table: CostTable, layers: int) -> Iterator[HeldOut]:
    work = shape.work
    measured = {op: float(np.median(of(op, runs))) for op in (FIRST, ATTENTION, BETWEEN, LAST)}
    predicted = {
        FIRST: table.pre_attention_s(work.tokens),
        ATTENTION: table.accel_attention_s(work),
        BETWEEN: table.linear_s(work.tokens),
        LAST: table.post_attention_s(work.tokens) + table.head_s(work.sampled),
    }
    parts = {
        "first": {FIRST: 1},
        "layer": {ATTENTION: 1, BETWEEN: 1},
        "last layer": {ATTENTION: 1, LAST: 1},
        STEP: {FIRST: 1, ATTENTION: layers, BETWEEN: layers - 1, LAST: 1},
    }
    for what, ops in parts.items():
        yield HeldOut(
            what=what,
            at=str(shape),
            measured_s=sum(times * measured[op] for op, times in ops.items()),
            predicted_s=sum(times * predicted[op] for op, times in ops.items()),
        )


def _host_held_out(samples: Samples, table: CostTable, bounds: Bounds) -> Iterator[HeldOut]:
    """With all the host's threads, as the table has it."""
    threads = max((threads for threads, _, _ in samples.host), default=0)
    for rows, context in host_held_out(bounds):
        found = samples.host.get((threads, rows, context))
        if found:
            yield HeldOut(
                what=HOST,
                at=f"{rows} x {context}",
                measured_s=float(np.median(found)),
                predicted_s=table.host_attention_s(rows, rows * context),
            )
