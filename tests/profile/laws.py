"""A machine whose ops take what a formula says: its samples and profiles need no measuring and have right answers."""

from __future__ import annotations

from engines.core.ops import OpKind
from engines.core.profile_table import ProfileTable
from engines.core.types import Unit
from harness.profile_accuracy import accuracy_of
from harness.profile_file import Accuracy, CountPoint, Overhead, Points, Profile, ProfiledBackend, measurements
from harness.profile_grid import Bounds, Shape, held_out, host_held_out, host_points, knots, moved_tokens
from harness.profile_points import ATTENTION, BETWEEN, FIRST, LAST, TO_ACCEL, TO_HOST, points_of
from harness.profile_request import Request
from harness.profile_run import Samples

MODEL = "tiny-1m"
LAYERS = 4
HOST_THREADS = 2
BESIDE = 1.25  # what every op takes longer with the other units busy
STEP_OVERHEAD_S, TOKEN_OVERHEAD_S = 3e-4, 4e-6
BOUNDS = Bounds(max_batch_tokens=256, max_context=512, kv_tokens=8192)


def first_s(tokens: int) -> float:
    return 1e-4 + 2e-6 * tokens


def between_s(tokens: int) -> float:
    return 2e-4 + 5e-6 * tokens


def last_s(tokens: int) -> float:
    return 1e-4 + 4e-6 * tokens


def head_s(sampled: int) -> float:
    return 3e-5 + 7e-6 * sampled if sampled else 0.0


def attention_s(shape: Shape) -> float:
    """Decodes linear in rows and in their KV, chunks in length and in pairs; bilinear, so interpolation is exact."""
    decodes = 1e-6 * shape.rows + 2e-8 * shape.rows * shape.context
    return decodes + sum(1e-6 * length + 3e-9 * length * start for length, start in shape.chunks)


def evicted_s(shape: Shape) -> float:
    """What the op after attention pays for the KV that was read; nothing after short contexts."""
    reads_little = shape.context <= 16 and all(start == 0 for _, start in shape.chunks)
    return 0.0 if reads_little else 1e-8 * shape.rows * (shape.context - 16) + sum(1e-8 * s for _, s in shape.chunks)


def step_of(shape: Shape) -> dict[tuple[OpKind, Unit], float]:
    extra = evicted_s(shape)
    return {
        FIRST: first_s(shape.tokens),
        ATTENTION: attention_s(shape),
        BETWEEN: between_s(shape.tokens) + extra,
        LAST: last_s(shape.tokens) + head_s(shape.work.sampled) + extra,
    }


def host_s(threads: int, rows: int, context: int) -> float:
    return 1e-5 + 1e-7 * rows * context / threads


def samples(bounds: Bounds = BOUNDS, rounds: int = 2, slower: float = 1.0) -> Samples:
    found = Samples()
    for _ in range(rounds):
        for shape in [*knots(bounds), *held_out(bounds)]:
            found.steps[shape].append({key: slower * seconds for key, seconds in step_of(shape).items()})
        for tokens in moved_tokens(bounds):
            moved = {TO_HOST: 1e-5 + 1e-7 * tokens, TO_ACCEL: 2e-5 + 2e-7 * tokens}
            found.moves[tokens].append({key: slower * seconds for key, seconds in moved.items()})
        for threads in range(1, HOST_THREADS + 1):
            for rows, context in host_points(bounds):
                found.host[threads, rows, context].append(slower * host_s(threads, rows, context))
        for rows, context in host_held_out(bounds):
            found.host[HOST_THREADS, rows, context].append(slower * host_s(HOST_THREADS, rows, context))
    return found


def made_profile(backend: ProfiledBackend = "cpu", accel_cores: int = 1, model: str = MODEL) -> Profile:
    request = Request(backend, model, "float32", accel_cores, 256, 512, 16, False)
    gap = STEP_OVERHEAD_S + TOKEN_OVERHEAD_S
    gaps = (CountPoint(count=1, p10_s=gap, median_s=gap, p90_s=gap, samples=3),)
    overhead = Overhead(step_s=STEP_OVERHEAD_S, token_s=TOKEN_OVERHEAD_S, gaps=gaps)
    alone, beside = samples(), samples(slower=BESIDE)
    points, points_beside = points_of(alone, BOUNDS), points_of(beside, BOUNDS)

    def judged(found: Samples, points: Points) -> Accuracy:
        return accuracy_of(found, ProfileTable(measurements(points, overhead, LAYERS)), BOUNDS, LAYERS)

    return Profile(
        created_utc="2026-11-25T12:00:00+00:00",
        setting=request.setting(2),
        machine={"cpu": "a formula"},
        versions={"python": "3"},
        git_commit=None,
        points=points,
        beside=points_beside,
        overhead=overhead,
        accuracy=judged(alone, points),
        accuracy_beside=judged(beside, points_beside),
    )
