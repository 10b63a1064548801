"""Which steps `harness profile` runs: shapes of batches whose ops, once timed, make a cost table. Plain arithmetic.

Knots are spaced by ratio, because costs change with ratios. Some shapes are held out: the table never sees them, and is
judged by them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from engines.core.cost import Work

SHORT_CHUNK = 32  # of engines/backends/rows.py: longer chunks take another path, so there is a knot on each side
SHORTEST_CONTEXT = 16
MOST_ROWS = 256
HELD_OUT_SEED = 20
LENGTH_KNOTS = (1, 2, 4, 8, 16, SHORT_CHUNK, SHORT_CHUNK + 1, 48, 64, 96, 128, 192)
QUICK_LENGTH_KNOTS = (1, 8, SHORT_CHUNK, SHORT_CHUNK + 1, 128)


@dataclass(frozen=True, slots=True)
class Shape:
    """One step: `rows` decodes of equal context (the new token included), and chunks of prompts as (length, start)."""

    rows: int = 0
    context: int = 0
    chunks: tuple[tuple[int, int], ...] = ()
    samples: bool = False  # whether the chunks are their prompts' last

    @property
    def tokens(self) -> int:
        return self.rows + sum(length for length, _ in self.chunks)

    @property
    def work(self) -> Work:
        return Work(
            tokens=self.tokens,
            decode_rows=self.rows,
            decode_kv_tokens=self.rows * self.context,
            prefill_tokens=self.tokens - self.rows,
            prefill_kv_tokens=sum(length + start for length, start in self.chunks),
            sampled=self.rows + (len(self.chunks) if self.samples else 0),
            chunks=self.chunks,
        )

    def __str__(self) -> str:
        decodes = [f"{self.rows} x {self.context}"] if self.rows else []
        return ", ".join([*decodes, *(f"{length} from {start}" for length, start in self.chunks)])


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to measure. `kv_tokens` is what the pages in memory hold: more rows get shorter contexts."""

    max_batch_tokens: int
    max_context: int
    kv_tokens: int
    quick: bool = False

    @property
    def most_rows(self) -> int:
        return min(MOST_ROWS, self.max_batch_tokens, self.kv_tokens // SHORTEST_CONTEXT)

    def longest_context(self, rows: int) -> int:
        return min(self.max_context, self.kv_tokens // rows)


def knots(bounds: Bounds) -> list[Shape]:
    return [*decode_knots(bounds), *prefill_knots(bounds)]


def decode_knots(bounds: Bounds) -> Iterator[Shape]:
    """Attention grows with the KV it reads, nearly in a straight line: few contexts, many batch sizes."""
    for rows in ladder(1, bounds.most_rows, 4.0 if bounds.quick else 1.5):
        longest = bounds.longest_context(rows)
        middle = [] if bounds.quick else [context for context in (128, 512) if context < longest]
        for context in sorted({SHORTEST_CONTEXT, *middle, longest}):
            yield Shape(rows, context)


def prefill_knots(bounds: Bounds) -> Iterator[Shape]:
    """The first chunk of a prompt takes a path of its own, so starts 0 and 1 are both there; then a straight line."""
    fixed = QUICK_LENGTH_KNOTS if bounds.quick else LENGTH_KNOTS
    longest = min(bounds.max_batch_tokens, bounds.max_context)
    lengths = [length for length in fixed if length < longest]
    if longest > fixed[-1]:
        lengths += ladder(fixed[-1], longest, 4.0 if bounds.quick else 1.4)[1:]
    else:
        lengths.append(longest)
    for length in lengths:
        last_start = bounds.max_context - length
        middle = [] if bounds.quick else [last_start // 2]
        for start in sorted({0, 1, *middle, last_start}):
            if start <= last_start:
                yield Shape(chunks=((length, start),))


def held_out(bounds: Bounds) -> list[Shape]:
    """Decodes, chunks and mixtures between the knots, the same ones every time."""
    draw = Random(HELD_OUT_SEED)
    each = 4 if bounds.quick else 10
    drawn = [
        *(_decodes(draw, bounds) for _ in range(each)),
        *(Shape(chunks=(_chunk(draw, bounds, bounds.max_batch_tokens),)) for _ in range(each)),
        *(_mixture(draw, bounds) for _ in range(each)),
    ]
    seen = set(knots(bounds))
    return [shape for shape in dict.fromkeys(drawn) if shape not in seen]


def host_points(bounds: Bounds) -> list[tuple[int, int]]:
    """(rows, context of each) of host attention."""
    ratio = 8.0 if bounds.quick else 3.0
    return [
        (rows, context)
        for rows in ladder(1, bounds.most_rows, ratio)
        for context in sorted({*ladder(SHORTEST_CONTEXT, bounds.longest_context(rows), ratio)})
    ]


def host_held_out(bounds: Bounds) -> list[tuple[int, int]]:
    draw = Random(HELD_OUT_SEED + 1)
    drawn = [_decodes(draw, bounds) for _ in range(4 if bounds.quick else 12)]
    seen = set(host_points(bounds))
    return [key for key in dict.fromkeys((shape.rows, shape.context) for shape in drawn) if key not in seen]


def moved_tokens(bounds: Bounds) -> list[int]:
    return ladder(SHORTEST_CONTEXT, bounds.max_context, 8.0 if bounds.quick else 2.5)


def ladder(first: int, last: int, ratio: float) -> list[int]:
    """Whole numbers from `first` to `last`, both included, each about `ratio` times the one before."""
    if last <= first:
        return [last]
    steps = max(1, round(math.log(last / first) / math.log(ratio)))
    return sorted({round(first * (last / first) ** (step / steps)) for step in range(steps + 1)})


def _decodes(draw: Random, bounds: Bounds) -> Shape:
    rows = _log_uniform(draw, 1, bounds.most_rows)
    return Shape(rows, _log_uniform(draw, SHORTEST_CONTEXT, bounds.longest_context(rows)))


def _chunk(draw: Random, bounds: Bounds, most: int) -> tuple[int, int]:
    length = _log_uniform(draw, 2, min(most, bounds.max_context))
    is_first = draw.random() < 0.5
    return length, 0 if is_first else draw.randint(0, bounds.max_context - length)


def _mixture(draw: Random, bounds: Bounds) -> Shape:
    """What a step of serving looks like: decodes, and one to three prompts that come in."""
    decodes = _decodes(draw, bounds)
    count = draw.randint(1, 3)
    room = max(2, (bounds.max_batch_tokens - decodes.rows) // count)
    chunks = tuple(_chunk(draw, bounds, room) for _ in range(count))
    return Shape(decodes.rows, decodes.context, chunks, samples=True)


def _log_uniform(draw: Random, first: int, last: int) -> int:
    ratio: float = (last / first) ** draw.random()
    return round(first * ratio)
