"""`harness bench attention`: decode attention on the CPU against the memory's limit, and beside what others have.

Decoding reads every byte of K and V once, so the only figure that matters is the share of the read bandwidth measured
in the same round: the stream (the best of three access patterns), ours and the rivals take turns, and shares are
medians of paired ratios. What starting and ending a job costs is bench_attention_dispatch.py's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import psutil
import torch

from engines.apex import _cpu, attention
from harness.bench_attention_dispatch import dispatch_lines, measure_dispatch
from harness.bench_attention_memory import COLD_BYTES, Arena, Shape, dtype_name
from harness.bench_attention_rivals import (
    Contender,
    Elsewhere,
    Ours,
    RivalEndedError,
    Torch,
    installed,
    sdpa,
    two_products,
)
from harness.environment import allowed_cores, confined

ROUNDS = 7
PATTERNS = ("forward", "ahead", "four_parts")
HEADS = ((32, 32), (32, 8))
HEAD_DIM = 128
BATCHES = (1, 8, 32)
CONTEXTS = (512, 2048, 8192)
HEADER = (
    f"decode attention, head_dim {HEAD_DIM} [measured on this CPU]; GB/s of K and V, share of the read bandwidth of "
    f"the same round (median of {ROUNDS}, lowest-highest)"
)
FEW = (Shape(32, 32, HEAD_DIM, 8, 2048), Shape(32, 8, HEAD_DIM, 8, 2048), Shape(32, 8, HEAD_DIM, 32, 2048))
MOST_MEMORY = 0.4  # of what is free; the rivals need some as well


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the rounds; `share_of_stream` and `ours_is_faster_by` are medians of ratios within rounds."""

    impl: str
    dtype: str
    isa: str
    threads: int
    query_heads: int
    kv_heads: int
    head_dim: int
    batch: int
    context: int
    gb_per_s: float
    stream_gb_per_s: float
    stream_pattern: str
    share_of_stream: float
    share_low: float
    share_high: float
    ours_is_faster_by: float  # 1 for ours
    rounds: int


@dataclass(frozen=True, slots=True)
class Setting:
    dtype: torch.dtype
    isa: str
    threads: int
    shape: Shape
    rivals: bool


def main(as_json: bool) -> None:
    cores = allowed_cores()
    rows: list[Row] = []
    if not as_json:
        print(HEADER)
    for row in measured(cores):
        rows.append(row)
        if not as_json:  # all of them take a quarter of an hour
            print(_line(row), flush=True)
    dispatch = measure_dispatch(cores)
    if as_json:
        label = "measured on this CPU"
        print(json.dumps({"label": label, "rows": [asdict(row) for row in rows], "dispatch": asdict(dispatch)}))
        return
    print("\n".join([*_summary(rows), *dispatch_lines(dispatch)]))


def say(line: str) -> None:
    print(line, file=sys.stderr)


def settings(most_threads: int, isas: Sequence[str]) -> list[Setting]:
    """All shapes with 16-bit K and V and the best instructions; a few with the others."""
    shapes = [Shape(*heads, HEAD_DIM, batch, context) for heads, batch, context in product(HEADS, BATCHES, CONTEXTS)]
    counts = sorted({1, most_threads})
    found = [
        Setting(dtype, isas[0], threads, shape, rivals=True)
        for dtype, threads, shape in product((torch.float16, torch.bfloat16), counts, shapes)
    ]
    found += [Setting(torch.float32, isas[0], threads, shape, rivals=False) for threads in counts for shape in FEW]
    found += [
        Setting(dtype, isa, threads, shape, rivals=False)
        for isa in isas[1:]
        for dtype, threads, shape in product((torch.float16, torch.bfloat16), counts, FEW)
    ]
    return found


def measured(
    cores: Sequence[int], wanted: Sequence[Setting] | None = None, rounds: int = ROUNDS, beside: bool = True
) -> Iterator[Row]:
    """`beside`: with the rivals of other environments."""
    chosen = settings(len(cores), attention.available_isas()) if wanted is None else wanted
    with ExitStack() as stack:
        elsewhere = _opened(stack) if beside else []
        for dtype in dict.fromkeys(setting.dtype for setting in chosen):
            of_dtype = [setting for setting in chosen if setting.dtype == dtype]
            fitting = [each for each in of_dtype if each.shape.bytes(dtype) <= _most_bytes()]
            for setting in of_dtype:
                if setting not in fitting:
                    say(f"{setting.shape}, {dtype_name(dtype)}: left out, too large for this machine's free memory")
            if not fitting:
                continue
            arena = Arena(dtype, max(COLD_BYTES, *(each.shape.bytes(dtype) for each in fitting)))
            for setting in fitting:
                say(f"{dtype_name(dtype)}, {setting.isa}, {setting.threads} threads: {setting.shape}")
                yield from _race(arena, setting, list(cores[: setting.threads]), elsewhere, rounds)


def _opened(stack: ExitStack) -> list[Elsewhere]:
    opened = []
    for rival in installed():
        opened.append(Elsewhere(rival.impl, rival.command))
        stack.callback(opened[-1].end)
    return opened


def _most_bytes() -> int:
    return int(psutil.virtual_memory().available * MOST_MEMORY)


def _race(arena: Arena, setting: Setting, cores: list[int], elsewhere: list[Elsewhere], rounds: int) -> Iterator[Row]:
    with attention.using_isa(setting.isa), ExitStack() as stack:
        contenders: list[Contender] = [Ours(arena, setting.shape, cores)]
        if setting.rivals:
            contenders += _torch_rivals(arena, setting)
            contenders += [rival for rival in list(elsewhere) if _joins(rival, elsewhere, setting, cores)]
        for contender in contenders:
            stack.callback(contender.close)
        speeds: dict[str, list[float]] = {name: [] for name in (*PATTERNS, *(each.impl for each in contenders))}
        for number in range(rounds + 1):
            found = _round(arena, contenders, elsewhere, cores)
            if number:  # the first warms up
                for name, speed in found.items():
                    speeds[name].append(speed)
        yield from _rows(setting, contenders, speeds)


def _round(arena: Arena, contenders: list[Contender], elsewhere: list[Elsewhere], cores: list[int]) -> dict[str, float]:
    """GB/s of each."""
    found = {}
    memory = arena.memory[: COLD_BYTES // arena.dtype.itemsize]
    for pattern in PATTERNS:
        seconds, read = _cpu.time_reading(memory, pattern, cores)
        found[pattern] = read / seconds / 1e9
    for contender in list(contenders):
        try:
            with confined(cores if isinstance(contender, Torch) else allowed_cores()):
                found[contender.impl] = contender.bytes / contender.run() / 1e9
        except RivalEndedError as error:
            say(f"{error}; going on without it")
            contenders.remove(contender)
            elsewhere[:] = [rival for rival in elsewhere if rival is not contender]
    return found


def _joins(rival: Elsewhere, elsewhere: list[Elsewhere], setting: Setting, cores: list[int]) -> bool:
    try:
        return rival.lay_out(setting.shape, setting.dtype, cores)
    except RivalEndedError as error:
        say(f"{error}; going on without it")
        elsewhere.remove(rival)
        return False


def _torch_rivals(arena: Arena, setting: Setting) -> list[Contender]:
    if arena.dtype == torch.float16:
        return []  # on a CPU torch is at its best in bfloat16
    ways = {"torch_sdpa": sdpa, "torch_bmm": two_products}
    return [Torch(impl, way, arena, setting.shape, setting.threads) for impl, way in ways.items()]


def _rows(setting: Setting, contenders: Sequence[Contender], speeds: dict[str, list[float]]) -> Iterator[Row]:
    best = max(PATTERNS, key=lambda pattern: float(np.median(speeds[pattern])))
    stream = np.array(speeds[best])
    ours = np.array(speeds[Ours.impl])
    for contender in contenders:
        theirs = np.array(speeds[contender.impl])
        shares = theirs / stream
        yield Row(
            impl=contender.impl,
            dtype=dtype_name(setting.dtype),
            isa=setting.isa if contender.impl == Ours.impl else "own",
            threads=setting.threads,
            query_heads=setting.shape.query_heads,
            kv_heads=setting.shape.kv_heads,
            head_dim=setting.shape.head_dim,
            batch=setting.shape.batch,
            context=setting.shape.context,
            gb_per_s=float(np.median(theirs)),
            stream_gb_per_s=float(np.median(stream)),
            stream_pattern=best,
            share_of_stream=float(np.median(shares)),
            share_low=float(shares.min()),
            share_high=float(shares.max()),
            ours_is_faster_by=float(np.median(ours / theirs)),
            rounds=len(shares),
        )


def _line(row: Row) -> str:
    faster = "" if row.impl == Ours.impl else f"; ours is {row.ours_is_faster_by:.1f} x as fast"
    return (
        f"{row.impl:10} {row.dtype:8} {row.isa:6} {row.threads} threads, {row.query_heads}:{row.kv_heads} heads, "
        f"batch {row.batch:2}, context {row.context:4}: {row.gb_per_s:5.1f} of {row.stream_gb_per_s:5.1f} GB/s: "
        f"{row.share_of_stream:.2f} ({row.share_low:.2f}-{row.share_high:.2f}){faster}"
    )


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    most = max(row.threads for row in rows)
    keys = dict.fromkeys((row.impl, row.dtype, row.isa, row.kv_heads) for row in rows)
    for impl, dtype, isa, kv_heads in keys:
        found = [
            row
            for row in rows
            if (row.impl, row.dtype, row.isa, row.kv_heads, row.threads) == (impl, dtype, isa, kv_heads, most)
        ]
        shares = [row.share_of_stream for row in found]
        faster = [row.ours_is_faster_by for row in found]
        line = (
            f"all {most} cores, {impl} {dtype} {isa}, {found[0].query_heads}:{kv_heads}: share of the read bandwidth "
            f"{min(shares):.2f}-{max(shares):.2f}, median {float(np.median(shares)):.2f}"
        )
        yield line if impl == Ours.impl else f"{line}; ours is {min(faster):.1f}-{max(faster):.1f} x as fast"
