"""Visits every point round by round and keeps what each visit found.

One round visits all points once, in an order of its own, so that a machine's drift spreads over the points instead of
bending the curves. The first round warms up and is dropped. What becomes of the samples is profile_points.py's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from harness.profile_grid import Bounds, Shape, held_out, knots, ladder, moved_tokens

if TYPE_CHECKING:
    from engines.apex.attention import Pool
    from engines.backends.profile import OpSeconds, StepRig

FULL_ROUNDS, QUICK_ROUNDS = 5, 3
WORTH_REPEATING_S = 0.03  # a visit of a short step runs it for so long, after once for nothing
MOST_RUNS = 10
ORDER_SEED = 7


@dataclass(slots=True)
class Samples:
    """Seconds by point, one entry per round."""

    steps: dict[Shape, list[OpSeconds]] = field(default_factory=lambda: defaultdict(list))
    moves: dict[int, list[OpSeconds]] = field(default_factory=lambda: defaultdict(list))
    host: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))


def measure(
    rig: StepRig, pool: Pool | None, bounds: Bounds, host_bounds: Bounds, say: Callable[[str], None]
) -> Samples:
    """All rounds. `pool`: the host's threads for attention, None where there is no core for them."""
    visits: list[Callable[[Samples], None]] = []
    visits += [_step_visit(rig, shape) for shape in [*knots(bounds), *held_out(bounds)]]
    visits += [_move_visit(rig, tokens) for tokens in moved_tokens(bounds)]
    if pool is not None:
        visits += [_host_visit(rig, pool, rows, context) for rows, context in host_points(host_bounds)]
    rounds = rounds_of(bounds)
    order, samples = Random(ORDER_SEED), Samples()
    for number in range(rounds + 1):
        order.shuffle(visits)
        found = Samples() if number == 0 else samples
        for visit in visits:
            visit(found)
        say("warmed up" if number == 0 else f"round {number} of {rounds}, {len(visits)} points each")
    return samples


def rounds_of(bounds: Bounds) -> int:
    return QUICK_ROUNDS if bounds.quick else FULL_ROUNDS


def host_points(bounds: Bounds) -> list[tuple[int, int]]:
    ratio = 8.0 if bounds.quick else 4.0
    return [
        (rows, context)
        for rows in ladder(1, bounds.most_rows, ratio)
        for context in sorted({*ladder(16, bounds.longest_context(rows), ratio)})
    ]


def _step_visit(rig: StepRig, shape: Shape) -> Callable[[Samples], None]:
    def visit(samples: Samples) -> None:
        batch = rig.lay_out(shape.rows, shape.context, shape.chunks, shape.samples)
        samples.steps[shape].append(_settled(lambda: rig.run(batch)))

    return visit


def _move_visit(rig: StepRig, tokens: int) -> Callable[[Samples], None]:
    def visit(samples: Samples) -> None:
        batch = rig.lay_out(2, 16, (), samples=False)
        samples.moves[tokens].append(_settled(lambda: rig.run(batch, rig.moves(tokens))))

    return visit


def _host_visit(rig: StepRig, pool: Pool, rows: int, context: int) -> Callable[[Samples], None]:
    def visit(samples: Samples) -> None:
        runs = [rig.host_attention(pool, rows, context) for _ in range(3)]
        samples.host[rows, context].append(float(np.median(runs)))

    return visit


def _settled(run: Callable[[], OpSeconds]) -> OpSeconds:
    """Of a short step: the medians of several runs after one that is dropped; of a long one: its one run."""
    found = run()
    step_s = sum(found.values())
    if step_s > WORTH_REPEATING_S:
        return found
    runs = [run() for _ in range(min(MOST_RUNS, 1 + int(WORTH_REPEATING_S / step_s)))]
    return {key: float(np.median([each[key] for each in runs])) for key in found}
