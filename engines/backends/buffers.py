"""Where the bytes of the KV live: paged tensors per tier and layer, and the block tables of the bound slots.

The core decides which block belongs to whom (engines/core/kv.py); here its decisions are only carried out.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engines.apex.memory import large_pages
from engines.core.types import BlockChanges, Tier, TierCapacity


@dataclass(frozen=True, slots=True)
class KvShape:
    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype


class PagedKv:
    """Keys and values of one tier: per layer `[blocks, kv_heads, page_tokens, head_dim]`, heads outside tokens."""

    def __init__(self, shape: KvShape, capacity: TierCapacity, device: torch.device, pin: bool = False) -> None:
        size = (shape.layers, capacity.blocks, shape.kv_heads, capacity.page_tokens, shape.head_dim)
        self.keys, self.values = (zeros(size, shape.dtype, device, pin) for _ in range(2))
        self.page_tokens = capacity.page_tokens


def zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device, pin: bool = False) -> torch.Tensor:
    """Zeros, not empty: a page read before it is written must be wrong in the same way every time."""
    if device.type == "cpu" and not pin:
        return large_pages(size, dtype)
    return torch.zeros(size, dtype=dtype, device=device, pin_memory=pin)


class BlockTables:
    """One row per slot, filled by the changes of each plan: copying whole tables costs more than deciding."""

    def __init__(self, slots: int, blocks_per_slot: int) -> None:
        self.blocks: npt.NDArray[np.int32] = np.zeros((slots, blocks_per_slot), dtype=np.int32)
        self.lengths = [0] * slots
        self.request_of = [-1] * slots
        self.tier_of = [Tier.ACCEL] * slots

    def apply(self, changes: BlockChanges) -> None:
        for slot in changes.ends:
            self.lengths[slot] = 0
            self.request_of[slot] = -1
        for start in changes.starts:
            self.lengths[start.slot] = 0
            self.request_of[start.slot] = start.request_id
            self.tier_of[start.slot] = start.tier
        for slot, block in zip(changes.grown_slots, changes.grown_blocks, strict=True):
            self.blocks[slot, self.lengths[slot]] = block
            self.lengths[slot] += 1
