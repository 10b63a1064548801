"""The envelope that every engine of a run is given, and what one took beyond it, as sentences with the difference.

Pure: numbers in, sentences out. An engine's own account (`resolved`) is held against the envelope, and so is what was
seen of it while it served, because an account can be wrong. Who decides what happens to an unfair cell: verdicts.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.experiment import Budget
from harness.sizes import format_bytes
from harness.sizing import HOST_PAGE_TOKENS, Sizing

# What an engine reports under each name, in words; the same names are the fields of the envelope.
COUNTS = {
    "accel_kv_tokens": "{} KV tokens on the accelerator",
    "host_kv_tokens": "{} KV tokens on the host",
    "cpu_threads": "{} CPU threads",
    "max_batch": "{} requests at once (max_batch)",
    "max_batch_tokens": "{} tokens a step (max_batch_tokens)",
}
# The parts of the accelerator's memory; an engine that keeps some weights elsewhere says what it has there.
MEMORY_PARTS = (("accel_weight_bytes", "weight_bytes"), ("workspace_bytes",), ("accel_kv_bytes",))


@dataclass(frozen=True, slots=True)
class Envelope:
    """None: not limited, because the budget says `auto` and nothing follows from the machine."""

    accel_memory_bytes: int | None
    accel_kv_tokens: int | None
    host_kv_tokens: int | None
    cpu_threads: int | None
    max_batch: int
    max_batch_tokens: int
    dtype: str
    accel_page_tokens: int = 16

    @classmethod
    def of(cls, budget: Budget, dtype: str, sizing: Sizing, kv_cap: int | None) -> Envelope:
        """`sizing`: what the budget comes to on this machine for an engine that keeps all weights on the accelerator.

        Tokens (`kv_cap`) and bytes bind where they are given. Where neither is, bytes do: who keeps weights elsewhere
        may have more KV for them.
        """
        everything = sizing.weight_bytes + sizing.workspace_bytes + sizing.accel_kv_tokens * sizing.kv_bytes_per_token
        tokens, memory = kv_cap, _number(budget.accel_memory)
        return cls(
            accel_memory_bytes=everything if tokens is None and memory is None else memory,
            accel_kv_tokens=tokens,
            host_kv_tokens=sizing.host_kv_tokens,
            cpu_threads=_number(budget.cpu_threads),
            max_batch=budget.max_batch,
            max_batch_tokens=budget.max_batch_tokens,
            dtype=dtype,
            accel_page_tokens=sizing.accel_page_tokens,
        )

    def limits(self) -> dict[str, int]:
        """The counts that are limited, by the names that engines report them under."""
        found = {name: getattr(self, name) for name in COUNTS}
        return {name: limit for name, limit in found.items() if limit is not None}


def violations(envelope: Envelope, resolved: Mapping[str, object], metrics: Mapping[str, float]) -> list[str]:
    """Every way in which an engine took more than it was given; `metrics` are the cell's."""
    claimed = list(_claimed(envelope, resolved))
    named = {name for name, _ in claimed}
    observed = [sentence for name, sentence in _observed(envelope, resolved, metrics) if name not in named]
    return [sentence for _, sentence in claimed] + observed


def unreported(envelope: Envelope, resolved: Mapping[str, object]) -> list[str]:
    """What is limited and what the engine does not say how much it took of."""
    names = [name for name in envelope.limits() if _number(resolved.get(name)) is None]
    return names if isinstance(resolved.get("dtype"), str) else [*names, "dtype"]


def _claimed(envelope: Envelope, resolved: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, limit in envelope.limits().items():
        taken = _number(resolved.get(name))
        if taken is not None and taken > limit:
            yield name, _sentence("took", COUNTS[name], taken, limit)
    memory, parts = _memory(resolved)
    if memory is not None and envelope.accel_memory_bytes is not None and memory > envelope.accel_memory_bytes:
        limit = envelope.accel_memory_bytes
        yield (
            "accel_memory",
            f"took {format_bytes(memory)} of accelerator memory ({parts}), "
            f"the envelope allows {format_bytes(limit)} ({_excess(memory, limit)})",
        )
    dtype = resolved.get("dtype")
    if isinstance(dtype, str) and dtype != envelope.dtype:
        yield "dtype", f"computed in {dtype}, the envelope says {envelope.dtype}"


def _observed(
    envelope: Envelope, resolved: Mapping[str, object], metrics: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """Peaks over the steps. Engines that are not ours have no steps, and then nothing is seen."""
    for name, metric, unit in (
        ("accel_kv_tokens", "accel_blocks_peak", envelope.accel_page_tokens),
        ("host_kv_tokens", "host_blocks_peak", HOST_PAGE_TOKENS),
        ("max_batch", "running_batch_max", 1),
    ):
        limit, seen = getattr(envelope, name), metrics.get(metric)
        if limit is None or seen is None or seen * unit <= limit:
            continue
        claim = _number(resolved.get(name))
        account = "" if claim is None else f", although it reports {claim:,}"
        yield name, _sentence("was seen to use", COUNTS[name], int(seen * unit), limit) + account


def _memory(resolved: Mapping[str, object]) -> tuple[int | None, str]:
    """Bytes on the accelerator as reported, and of what; None when a part is not known."""
    found = {}
    for names in MEMORY_PARTS:
        sizes = [(name, size) for name in names if (size := _number(resolved.get(name))) is not None]
        if not sizes:
            return None, ""
        name, found[name] = sizes[0]
    words = {"weight": "weights", "accel_weight": "weights", "workspace": "workspace", "accel_kv": "KV"}
    parts = " + ".join(f"{words[name.removesuffix('_bytes')]} {format_bytes(size)}" for name, size in found.items())
    return sum(found.values()), parts


def _sentence(verb: str, what: str, taken: int, limit: int) -> str:
    return f"{verb} {what.format(f'{taken:,}')}, the envelope allows {limit:,} ({_excess(taken, limit)})"


def _excess(taken: int, limit: int) -> str:
    """As many digits as it takes not to read +0 %."""
    if not limit:
        return "it allows none"
    percent = 100 * (taken - limit) / limit
    return f"+{percent:.0f} %" if percent >= 1 else f"+{percent:.1g} %"


def _number(value: object) -> int | None:
    """Rounded up: half a thread is one that others do not have."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return math.ceil(value)
