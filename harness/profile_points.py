"""From samples to the points of a profile: medians and spreads, and what belongs to which op.

Attention empties the caches, and the linear op after it pays for that: on a CPU up to a fifth more with long contexts
than with short ones. A table of linear ops over tokens cannot say so; therefore linear ops are taken after short
contexts, and what longer ones cost them is booked on the attention that caused it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from engines.core.ops import OpKind
from engines.core.types import Unit
from harness.profile_file import ChunkPoint, CountPoint, HostPoint, Points, RowsPoint
from harness.profile_grid import SHORTEST_CONTEXT, Bounds, Shape, host_points, knots

if TYPE_CHECKING:
    from engines.backends.profile import OpSeconds
    from harness.profile_run import Samples

OpKey = tuple[OpKind, Unit]
Steps = Mapping[Shape, "Sequence[OpSeconds]"]

FIRST, ATTENTION, BETWEEN, LAST = (
    (kind, Unit.GPU) for kind in (OpKind.FIRST, OpKind.ATTENTION, OpKind.BETWEEN, OpKind.LAST)
)
TO_HOST, TO_ACCEL = (OpKind.MOVE, Unit.D2H), (OpKind.MOVE, Unit.H2D)


def points_of(samples: Samples, bounds: Bounds, host_bounds: Bounds | None = None) -> Points:
    """The grid's points; what was held out stays out. `host_bounds`: those of the host's pages, where they differ."""
    known: Steps = {shape: samples.steps[shape] for shape in knots(bounds)}
    decodes: Steps = {shape: runs for shape, runs in known.items() if shape.rows}
    chunks: Steps = {shape: runs for shape, runs in known.items() if not shape.rows}
    short: Steps = {shape: runs for shape, runs in known.items() if _reads_little(shape)}
    between, last = by_tokens(short, BETWEEN), by_tokens({s: r for s, r in short.items() if not s.rows}, LAST)
    return Points(
        first=counted(by_tokens(chunks, FIRST) | by_tokens(decodes, FIRST)),
        between=counted(between),
        last=counted(last),
        head=counted(_sampling({s: r for s, r in short.items() if s.rows}, last)),
        decode_attention=tuple(
            RowsPoint(rows=shape.rows, context=shape.context, **_spread(_attention(runs, between[shape.tokens])))
            for shape, runs in decodes.items()
        ),
        prefill_attention=tuple(
            ChunkPoint(length=length, start=start, **_spread(_attention(runs, between[shape.tokens])))
            for shape, runs in chunks.items()
            for length, start in shape.chunks
        ),
        host_attention=tuple(
            HostPoint(threads=threads, rows=rows, context=context, **_spread(samples.host[threads, rows, context]))
            for threads in sorted({threads for threads, _, _ in samples.host})
            for rows, context in host_points(host_bounds or bounds)
            if (threads, rows, context) in samples.host
        ),
        move_to_host=counted({tokens: of(TO_HOST, runs) for tokens, runs in samples.moves.items()}),
        move_to_accel=counted({tokens: of(TO_ACCEL, runs) for tokens, runs in samples.moves.items()}),
    )


def by_tokens(steps: Steps, op: OpKey) -> dict[int, list[float]]:
    """Linear ops care for the number of rows only: all shapes of so many tokens are samples of one point."""
    found: dict[int, list[float]] = defaultdict(list)
    for shape, runs in steps.items():
        found[shape.tokens] += of(op, runs)
    return found


def of(op: OpKey, runs: Sequence[OpSeconds]) -> list[float]:
    return [run[op] for run in runs]


def counted(found: Mapping[int, Sequence[float]]) -> tuple[CountPoint, ...]:
    return tuple(CountPoint(count=count, **_spread(seconds)) for count, seconds in sorted(found.items()))


def _reads_little(shape: Shape) -> bool:
    return shape.context == SHORTEST_CONTEXT if shape.rows else all(start == 0 for _, start in shape.chunks)


def _attention(runs: Sequence[OpSeconds], usual_s: Sequence[float]) -> list[float]:
    """With what the op after it took beyond its usual, where that stands out of the noise.

    Linear ops may be a hundred times longer than attention over little KV: their noise must not become its cost.
    """
    (low_s, after_s, high_s), (usual_low_s, usually_s, usual_high_s) = (
        _quartiles(of(BETWEEN, runs)),
        _quartiles(usual_s),
    )
    extra = after_s - usually_s
    stands_out = extra > max(high_s - low_s, usual_high_s - usual_low_s)
    return [seconds + (extra if stands_out else 0.0) for seconds in of(ATTENTION, runs)]


def _quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = np.percentile(seconds, [25, 50, 75]).tolist()
    return first, second, third


def _sampling(decodes: Steps, last: Mapping[int, Sequence[float]]) -> dict[int, list[float]]:
    """The last op of a decode batch samples every row; what it takes beyond its post-attention is the head's."""
    counts = sorted(last)
    silent_s = [float(np.median(last[count])) for count in counts]
    return {
        rows: [max(0.0, seconds - float(np.interp(rows, counts, silent_s))) for seconds in found]
        for rows, found in by_tokens(decodes, LAST).items()
    }


class _Spread(TypedDict):
    p10_s: float
    median_s: float
    p90_s: float
    samples: int


def _spread(seconds: Sequence[float]) -> _Spread:
    p10_s, median_s, p90_s = np.percentile(seconds, [10, 50, 90]).tolist()
    return {"p10_s": p10_s, "median_s": median_s, "p90_s": p90_s, "samples": len(seconds)}
