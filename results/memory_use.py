"""What an engine holds on each tier: weights and buffers all the time, KV by blocks in use. Part of `resolved`.

An engine of somebody else's may not say so, or call something else `memory`: nothing is known then, and that is no
error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

TIERS = ("accel", "host", "disk")

Blocks = TypeVar("Blocks", int, npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes by tier. A block of the accelerator's pool takes `block` on each: its layers may be on different ones.

    `host_block`: of the pool for requests whose whole KV is on the host.
    """

    static: Mapping[str, int]
    block: Mapping[str, int]
    host_block: int

    def to_json(self) -> dict[str, object]:
        return {
            "static": {f"{tier}_bytes": self.static[tier] for tier in TIERS},
            "kv_block": {f"{tier}_bytes": self.block[tier] for tier in TIERS},
            "host_kv_block_bytes": self.host_block,
        }

    @classmethod
    def of(cls, resolved: Mapping[str, object]) -> MemoryUse | None:
        told = resolved.get("memory")
        if not isinstance(told, Mapping):
            return None
        static, block = _by_tier(told.get("static")), _by_tier(told.get("kv_block"))
        host_block = told.get("host_kv_block_bytes")
        if static is None or block is None or not isinstance(host_block, int):
            return None
        return cls(static, block, host_block)

    def on(self, tier: str, accel_blocks: Blocks, host_blocks: Blocks) -> Blocks:
        """With so many blocks in use."""
        in_blocks = self.block[tier] * accel_blocks
        return self.static[tier] + in_blocks + (self.host_block * host_blocks if tier == "host" else 0)


def _by_tier(told: object) -> dict[str, int] | None:
    if not isinstance(told, Mapping):
        return None
    found = {tier: told.get(f"{tier}_bytes") for tier in TIERS}
    whole = {tier: size for tier, size in found.items() if isinstance(size, int)}
    return whole if len(whole) == len(TIERS) else None
