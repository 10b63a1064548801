"""Visits every point round by round and keeps what each visit found: alone, and with the other units busy.

One round visits all points once, in an order of its own, so that a machine's drift spreads over the points instead of
bending the curves. The first round warms up and is dropped. What becomes of the samples is profile_points.py's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from harness.profile_beside import Neighbour
from harness.profile_grid import Bounds, Shape, held_out, host_held_out, host_points, knots, ladder, moved_tokens

if TYPE_CHECKING:
    from engines.apex.attention import Pool
    from engines.backends.profile import OpSeconds, StepRig

FULL_ROUNDS, QUICK_ROUNDS = 5, 3
WORTH_REPEATING_S = 0.03  # a visit of a short step runs it for so long, after once for nothing
MOST_RUNS = 10
HOST_RUNS = 3
ORDER_SEED = 7


@dataclass(slots=True)
class Samples:
    """Seconds by point, one entry per round."""

    steps: dict[Shape, list[OpSeconds]] = field(default_factory=lambda: defaultdict(list))
    moves: dict[int, list[OpSeconds]] = field(default_factory=lambda: defaultdict(list))
    host: dict[tuple[int, int, int], list[float]] = field(default_factory=lambda: defaultdict(list))  # threads first


Visit = Callable[[Samples, Samples], None]  # puts what it found into those alone and those beside


def measure(
    rig: StepRig,
    pools: Sequence[Pool],
    bounds: Bounds,
    host_bounds: Bounds,
    beside: bool,
    say: Callable[[str], None],
    rounds: int = 0,
) -> tuple[Samples, Samples | None]:
    """All rounds, the grid's own number where none is given. `pools`: the host's threads for attention, the most last;
    none where there is no core for them.
    """
    neighbour = Neighbour(rig, pools[-1], bounds, host_bounds) if beside and pools else None
    visits: list[Visit] = [_step_visit(rig, shape, neighbour) for shape in [*knots(bounds), *held_out(bounds)]]
    visits += [_move_visit(rig, tokens, neighbour) for tokens in moved_tokens(bounds)]
    for pool in pools:
        points = [*host_points(host_bounds), *(host_held_out(host_bounds) if pool is pools[-1] else ())]
        visits += [_host_visit(rig, pool, rows, context) for rows, context in points]
        if neighbour and pool is pools[-1]:
            visits += [_host_visit_beside(pool, rows, context, neighbour) for rows, context in points]
    rounds = rounds or rounds_of(bounds)
    order, alone, together = Random(ORDER_SEED), Samples(), Samples()
    for number in range(rounds + 1):
        order.shuffle(visits)
        found = (Samples(), Samples()) if number == 0 else (alone, together)
        for visit in visits:
            visit(*found)
        say("warmed up" if number == 0 else f"round {number} of {rounds}, {len(visits)} visits each")
    return alone, together if neighbour else None


def rounds_of(bounds: Bounds) -> int:
    return QUICK_ROUNDS if bounds.quick else FULL_ROUNDS


def thread_counts(most: int) -> list[int]:
    return ladder(1, most, 2.0) if most else []


def _step_visit(rig: StepRig, shape: Shape, neighbour: Neighbour | None) -> Visit:
    def visit(alone: Samples, beside: Samples) -> None:
        batch = rig.lay_out(shape.rows, shape.context, shape.chunks, shape.samples)
        found = _settled(lambda: rig.run(batch))
        alone.steps[shape].append(found)
        if neighbour:
            step_s = rig.step_seconds
            beside.steps[shape].append(_settled(lambda: neighbour.beside(lambda: rig.run(batch), step_s)))

    return visit


def _move_visit(rig: StepRig, tokens: int, neighbour: Neighbour | None) -> Visit:
    def visit(alone: Samples, beside: Samples) -> None:
        batch = rig.lay_out(2, 16, (), samples=False)
        alone.moves[tokens].append(_settled(lambda: rig.run(batch, rig.moves(tokens))))
        if neighbour:
            step_s = rig.step_seconds
            run = lambda: neighbour.beside(lambda: rig.run(batch, rig.moves(tokens)), step_s)  # noqa: E731
            beside.moves[tokens].append(_settled(run))

    return visit


def _host_visit(rig: StepRig, pool: Pool, rows: int, context: int) -> Visit:
    from engines.backends.profile import job_seconds

    def visit(alone: Samples, beside: Samples) -> None:
        jobs = rig.host_jobs(rows, context)
        runs = [job_seconds(pool, jobs.submit(pool, jobs.MOST)) for _ in range(HOST_RUNS)]
        alone.host[pool.threads, rows, context].append(float(np.median(runs)))

    return visit


def _host_visit_beside(pool: Pool, rows: int, context: int, neighbour: Neighbour) -> Visit:
    def visit(alone: Samples, beside: Samples) -> None:
        runs = [neighbour.host_attention(rows, context) for _ in range(HOST_RUNS)]
        beside.host[pool.threads, rows, context].append(float(np.median(runs)))

    return visit


def _settled(run: Callable[[], OpSeconds]) -> OpSeconds:
    """Of a short step: the medians of several runs after one that is dropped; of a long one: its one run."""
    found = run()
    step_s = sum(found.values())
    if step_s > WORTH_REPEATING_S:
        return found
    runs = [run() for _ in range(min(MOST_RUNS, 1 + int(WORTH_REPEATING_S / step_s)))]
    return {key: float(np.median([each[key] for each in runs])) for key in found}
