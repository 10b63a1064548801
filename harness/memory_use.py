"""Bytes per tier of an engine that runs on our scheduler, and the most that they came to in a cell."""

from collections.abc import Mapping
from pathlib import Path

from engines.core.memory import ModelSizes, footprint
from engines.core.placement import Placement
from engines.core.types import Capabilities, Tier
from harness.metrics import Measured
from results.memory_use import TIERS, MemoryUse
from results.store import iter_steps

BLOCKS = ("accel_blocks_used", "host_blocks_used")
UNKNOWN = "the engine does not say what its weights and its KV take on each tier"


def memory_use(sizes: ModelSizes, placement: Placement, caps: Capabilities, freed_bytes: int = 0) -> MemoryUse:
    """The workspace of a step's rows is no part of it: nobody knows how much of it is in use. `freed_bytes`: of weights
    on the accelerator, by packing.
    """
    weights = footprint(placement, sizes)
    layer_bytes = caps.accel.page_tokens * sizes.kv_bytes(packed=placement.compressed_kv)
    tiers = dict(zip(TIERS, Tier, strict=True))
    return MemoryUse(
        static={name: weights.of(tier) - (freed_bytes if tier is Tier.ACCEL else 0) for name, tier in tiers.items()},
        block={name: placement.kv_layers(tier) * layer_bytes for name, tier in tiers.items()},
        host_block=caps.host.bytes_per_block if caps.host.blocks else 0,
    )


def peaks(resolved: Mapping[str, object], cell_dir: Path) -> Measured:
    """Weights, buffers and KV in use, on each tier in the step in which they took most there."""
    memory = MemoryUse.of(resolved)
    if memory is None:
        return Measured({}, [], {_key(tier): UNKNOWN for tier in TIERS})
    most = {tier: float(memory.static[tier]) for tier in TIERS}
    for batch in iter_steps(cell_dir, BLOCKS):
        accel, host = (column.to_numpy(zero_copy_only=False).astype(float) for column in batch.columns)
        for tier in TIERS:
            most[tier] = max(most[tier], float(memory.on(tier, accel, host).max(initial=0.0)))
    return Measured({_key(tier): size for tier, size in most.items()}, [], {})


def _key(tier: str) -> str:
    return f"peak_{tier}_bytes"
