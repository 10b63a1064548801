"""The paged keys and values of one layer in 4 bit, and the floats of just the pages that a batch attends to.

Tokens are quantised as they arrive, each head's vector by itself, so that a page never has to be packed again. The
attention kernels do not know: they get float pages and tables that name them. Which block belongs to whom is decided
elsewhere, as it is for float pages (buffers.py).
"""

import torch
from torch import Tensor

from engines.backends.attention_ops import Pages
from engines.backends.buffers import KvShape
from engines.backends.compression import Packed, pack, unpack
from engines.backends.rows import Places
from engines.core.packing import even_group
from engines.core.types import TierCapacity


class Workspace:
    """Float pages to unpack into, shared by layers that take turns: a window lasts until the next one is made."""

    def __init__(self) -> None:
        self._room = torch.empty(0)

    @property
    def nbytes(self) -> int:
        return self._room.nbytes

    def take(self, size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        count = torch.Size(size).numel()
        if self._room.numel() < count or (self._room.dtype, self._room.device) != (dtype, device):
            self._room = torch.empty(0)  # the old room goes before the new one comes
            self._room = torch.empty(count, dtype=dtype, device=device)
        return self._room[:count].view(size)


class PackedPages:
    """Per page, head and token a low, a step and the codes of every group of the head's vector.

    Without a workspace every window is memory of its own, which on a CPU costs the first touch of every page.
    """

    def __init__(
        self, shape: KvShape, capacity: TierCapacity, device: torch.device, workspace: Workspace | None = None
    ) -> None:
        self._group = even_group(shape.head_dim)
        self._kv = _nothing_yet((2, capacity.blocks, shape.kv_heads, capacity.page_tokens), shape, self._group, device)
        self._workspace = workspace

    @property
    def page_tokens(self) -> int:
        return self._kv.shape[3]

    @property
    def nbytes(self) -> int:
        """Of what is held, without the window."""
        return self._kv.nbytes

    def append(self, key: Tensor, value: Tensor, places: Places) -> None:
        """key and value [rows, kv_heads, head_dim]: quantise the rows that have a place, and write them there."""
        blocks, offsets = places.page_ids.long(), places.offsets.long()
        fresh = torch.stack((places.of(key), places.of(value)), dim=1).to(self._kv.dtype)
        packed = pack(fresh, self._group)  # [rows, 2, kv_heads, ...], which is how the indices below take it
        for store, written in zip(self._kv.tensors(), packed.tensors(), strict=True):
            store[:, blocks, :, offsets] = written

    def window(self, tables: Tensor, contexts: Tensor) -> tuple[Pages, Tensor]:
        """tables [rows, pages] int32, contexts [rows] int32 -> the pages they use as floats, and tables of those.

        A page that several rows share is unpacked once; entries beyond a row's context name the window's first page.
        On CUDA the host waits here, to learn how many pages are distinct.
        """
        starts = torch.arange(tables.shape[1], device=tables.device) * self.page_tokens
        used = starts < contexts[:, None]
        blocks, places = torch.unique(tables[used], return_inverse=True)
        renumbered = torch.zeros_like(tables)
        renumbered[used] = places.to(tables.dtype)
        return self._unpacked(blocks.long()), renumbered

    def _unpacked(self, blocks: Tensor) -> Pages:
        size = (2, len(blocks), *self._kv.shape[2:])
        codes, low, step = (tensor.index_select(1, blocks) for tensor in self._kv.tensors())
        keys, values = self._room(size)
        for index, floats in enumerate((keys, values)):
            unpack(Packed(codes[index], low[index], step[index], size[1:]), out=floats)
        return Pages(keys, values)

    def _room(self, size: tuple[int, ...]) -> Tensor:
        workspace = self._workspace or Workspace()
        return workspace.take(size, self._kv.dtype, self._kv.codes.device)


def _nothing_yet(rows: tuple[int, ...], shape: KvShape, group: int, device: torch.device) -> Packed:
    """All zeros, which unpack to zeros: a page read before it is written must be wrong in the same way every time."""
    groups = -(-shape.head_dim // group)
    codes = torch.zeros(*rows, groups * group // 2, dtype=torch.uint8, device=device)
    low, step = (torch.zeros(*rows, groups, dtype=shape.dtype, device=device) for _ in range(2))
    return Packed(codes, low, step, (*rows, shape.head_dim))
