"""K and V for `harness bench attention`: one arena per dtype, far larger than the caches, cut into layers of any shape.

Decoding meets its K and V cold: between two visits of a layer lie all the others. A shape too small to empty the caches
alone is therefore laid out many times, and a run reads all of it once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.apex.memory import large_pages

PAGE_TOKENS = 256  # of our host pages
COLD_BYTES = 2**29  # read per run, sixteen times a large last-level cache
TILE_ELEMENTS = 2**24


@dataclass(frozen=True, slots=True)
class Shape:
    query_heads: int
    kv_heads: int
    head_dim: int
    batch: int
    context: int

    @property
    def elements(self) -> int:
        """K and V of one layer."""
        return 2 * self.batch * self.kv_heads * self.context * self.head_dim

    def bytes(self, dtype: torch.dtype) -> int:
        return self.elements * dtype.itemsize

    def layers(self, dtype: torch.dtype, size_bytes: int) -> int:
        """As many as make that size."""
        return max(1, -(-size_bytes // self.bytes(dtype)))

    def __str__(self) -> str:
        return f"{self.query_heads}:{self.kv_heads} x {self.head_dim}, batch {self.batch}, context {self.context}"


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Arena:
    """Numbers that attention may meet; shapes lie over one another in it."""

    def __init__(self, dtype: torch.dtype, size_bytes: int) -> None:
        self.dtype = dtype
        self._memory = large_pages((size_bytes // dtype.itemsize,), dtype)
        tile = torch.randn(min(TILE_ELEMENTS, len(self._memory)), generator=torch.Generator().manual_seed(0)).to(dtype)
        for first in range(0, len(self._memory), len(tile)):
            part = self._memory[first : first + len(tile)]
            part.copy_(tile[: len(part)])

    @property
    def memory(self) -> torch.Tensor:
        return self._memory

    def layers(self, shape: Shape, size_bytes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values, each flat, of as many layers as make `size_bytes`; fewer where the arena ends."""
        half = shape.elements // 2
        count = min(shape.layers(self.dtype, size_bytes), len(self._memory) // shape.elements)
        return [
            (self._memory[first : first + half], self._memory[first + half : first + shape.elements])
            for first in range(0, count * shape.elements, shape.elements)
        ]
