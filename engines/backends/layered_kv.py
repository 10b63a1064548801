"""Paged KV whose layers are on different tiers: one table of blocks, and pages of every layer where it belongs."""

from dataclasses import replace

import torch
from torch import Tensor

from engines.backends.attention_ops import KvRows, PagedOps, Pages
from engines.backends.buffers import KvShape, zeros
from engines.backends.disk_store import DiskStore
from engines.backends.packed_kv import PackedPages, Workspace
from engines.backends.rows import Places, PrefillSegment
from engines.core.placement import Placement
from engines.core.types import TierCapacity
from engines.core.units import Tier


class LayeredKv:
    """Compressed pages are unpacked for whoever attends, and only those it attends to."""

    def __init__(
        self, shape: KvShape, capacity: TierCapacity, placement: Placement, device: torch.device, disk: DiskStore | None
    ) -> None:
        self.page_tokens = capacity.page_tokens
        self.nbytes = dict.fromkeys(Tier, 0)
        self._pages: list[Pages | PackedPages] = []
        size = (capacity.blocks, shape.kv_heads, capacity.page_tokens, shape.head_dim)
        workspaces = {tier: Workspace() for tier in Tier}
        for index, layer in enumerate(placement.layers):
            if placement.compressed_kv:
                where = device if layer.kv is Tier.ACCEL else torch.device("cpu")
                packed = PackedPages(shape, capacity, where, workspaces[layer.kv])
                self.nbytes[layer.kv] += packed.nbytes
                self._pages.append(packed)
                continue
            names = [f"layers.{index}.{name}" for name in ("keys", "values")]
            keys, values = (_room(layer.kv, name, size, shape.dtype, device, disk) for name in names)
            self._pages.append(Pages(keys, values))
            self.nbytes[layer.kv] += keys.nbytes + values.nbytes

    def append(self, ops: PagedOps, layer: int, rows: KvRows, places: Places) -> None:
        pages = self._pages[layer]
        if isinstance(pages, PackedPages):
            pages.append(rows.key, rows.value, places)
        else:
            ops.append(rows, pages, places)

    def window(self, layer: int, tables: Tensor, contexts: Tensor) -> tuple[Pages, Tensor]:
        """Float pages, and tables [rows, pages] of them."""
        pages = self._pages[layer]
        return pages.window(tables, contexts) if isinstance(pages, PackedPages) else (pages, tables)

    def window_of(self, layer: int, segment: PrefillSegment) -> tuple[Pages, PrefillSegment]:
        """The same for one chunk of a prompt."""
        pages = self._pages[layer]
        if not isinstance(pages, PackedPages):
            return pages, segment
        end = torch.tensor([segment.start + segment.length], dtype=torch.int32, device=segment.blocks.device)
        found, tables = pages.window(segment.blocks[None].to(torch.int32), end)
        rows = None if segment.row_tables is None else tables.expand(segment.length, -1).contiguous()
        return found, replace(segment, blocks=tables[0].long(), row_tables=rows)

    def touch(self, layer: int, blocks: Tensor) -> None:
        """Bring blocks into memory: a byte of each of the system's pages would do, this reads all of them."""
        pages = self._pages[layer]
        if isinstance(pages, Pages):
            for tensor in (pages.keys, pages.values):
                tensor.index_select(0, blocks).view(torch.uint8).amax()


def _room(
    tier: Tier, name: str, size: tuple[int, ...], dtype: torch.dtype, device: torch.device, disk: DiskStore | None
) -> Tensor:
    if tier is Tier.DISK:
        assert disk is not None, "KV on disk needs a folder"
        return disk.zeros(name, size, dtype)
    if tier is Tier.HOST:
        return zeros(size, dtype, torch.device("cpu"), pin=device.type == "cuda")
    return zeros(size, dtype, device)
