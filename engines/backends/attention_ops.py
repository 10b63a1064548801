"""Attention and KV traffic of the accelerator side: one small seam between the C++ kernels (cpu) and torch ops (cuda).

Both do the same to the same pages. Prefill attention is torch on both: it is compute-bound, and SDPA is good at that.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from engines.apex import attention as native
from engines.backends.rows import Places, PrefillSegment, Rows
from engines.core.types import Tier


class PagedOps(Protocol):
    """`query [rows, query_heads, head_dim]`, pages `[blocks, kv_heads, page_tokens, head_dim]`."""

    def append(self, chunk: "KvRows", pages: "Pages", places: Places) -> None:
        """Write the keys and values of rows into their pages."""

    def decode(self, query: torch.Tensor, pages: "Pages", rows: Rows, out: torch.Tensor) -> None:
        """One query row per sequence, over all of its pages."""

    def prefill(
        self, query: torch.Tensor, chunk: "KvRows", pages: "Pages", segment: PrefillSegment, out: torch.Tensor
    ) -> None:
        """Causal attention of one chunk. `query`, `chunk` and `out` are the chunk's own rows."""


@dataclass(frozen=True, slots=True)
class KvRows:
    """Fresh keys and values, `[rows, kv_heads, head_dim]` each."""

    key: torch.Tensor
    value: torch.Tensor

    def span(self, first: int, length: int) -> "KvRows":
        return KvRows(self.key[first : first + length], self.value[first : first + length])


@dataclass(frozen=True, slots=True)
class Pages:
    """The paged keys and values of one layer."""

    keys: torch.Tensor
    values: torch.Tensor


class NativeOps:
    """The C++ kernels in the calling thread: on the `cpu` backend that thread *is* the accelerator. Or in a pool's, for
    the host's own share.
    """

    def __init__(self, pool: native.Pool | None = None) -> None:
        self._pool = pool

    def append(self, chunk: KvRows, pages: Pages, places: Places) -> None:
        key, value = places.of(chunk.key), places.of(chunk.value)
        native.append_kv(key, value, pages.keys, pages.values, places.page_ids, places.offsets)

    def decode(self, query: torch.Tensor, pages: Pages, rows: Rows, out: torch.Tensor) -> None:
        self._rows(query, pages, rows.decode_tables, rows.decode_contexts, out)

    def prefill(
        self, query: torch.Tensor, chunk: KvRows, pages: Pages, segment: PrefillSegment, out: torch.Tensor
    ) -> None:
        if segment.row_tables is None or segment.row_contexts is None:
            torch_prefill(query, chunk, pages, segment, out)
        else:
            self._rows(query, pages, segment.row_tables, segment.row_contexts, out)

    def _rows(
        self, query: torch.Tensor, pages: Pages, tables: torch.Tensor, contexts: torch.Tensor, out: torch.Tensor
    ) -> None:
        scale = query.shape[-1] ** -0.5
        native.decode_attention(query, pages.keys, pages.values, tables, contexts, out, scale, self._pool)


class TorchOps:
    """The same in torch ops that run anywhere; written for CUDA, checked against the C++ kernels on a CPU."""

    def append(self, chunk: KvRows, pages: Pages, places: Places) -> None:
        blocks, offsets = places.page_ids.long(), places.offsets.long()
        pages.keys[blocks, :, offsets] = places.of(chunk.key).to(pages.keys.dtype)
        pages.values[blocks, :, offsets] = places.of(chunk.value).to(pages.values.dtype)

    def decode(self, query: torch.Tensor, pages: Pages, rows: Rows, out: torch.Tensor) -> None:
        """Gather each row's pages into one padded context, mask the padding."""
        tables = rows.decode_tables.long()
        keys, values = _contiguous(pages.keys[tables]), _contiguous(pages.values[tables])
        seen = torch.arange(keys.shape[2], device=query.device) < rows.decode_contexts[:, None]
        attended = functional.scaled_dot_product_attention(
            query[:, :, None], keys, values, attn_mask=seen[:, None, None], enable_gqa=query.shape[1] != keys.shape[1]
        )
        out.copy_(attended[:, :, 0])

    def prefill(
        self, query: torch.Tensor, chunk: KvRows, pages: Pages, segment: PrefillSegment, out: torch.Tensor
    ) -> None:
        torch_prefill(query, chunk, pages, segment, out)


def torch_prefill(query: torch.Tensor, chunk: KvRows, pages: Pages, segment: PrefillSegment, out: torch.Tensor) -> None:
    """A matrix product: over the chunk itself when it starts its request, else over the pages written so far."""
    keys, values, mask = chunk.key.transpose(0, 1)[None], chunk.value.transpose(0, 1)[None], None
    if segment.start:
        end = segment.start + segment.length
        mask = torch.ones(segment.length, end, dtype=torch.bool, device=query.device).tril(segment.start)
        keys, values = _with_earlier(keys, pages.keys, segment), _with_earlier(values, pages.values, segment)
    queries = query.transpose(0, 1)[None]
    attended = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=query.shape[1] != keys.shape[1]
    )
    out.copy_(attended[0].transpose(0, 1))


def _with_earlier(chunk: torch.Tensor, pages: torch.Tensor, segment: PrefillSegment) -> torch.Tensor:
    """Of pages that hold the chunk as well, or, on the host, only what came before it."""
    gathered = _contiguous(pages[segment.blocks][None])
    if segment.tier is Tier.ACCEL:
        return gathered[:, :, : segment.start + segment.length]
    return torch.cat((gathered[:, :, : segment.start].to(chunk.device, chunk.dtype), chunk), dim=2)


def _contiguous(pages: torch.Tensor) -> torch.Tensor:
    """[rows, pages, kv_heads, page_tokens, head_dim] -> [rows, kv_heads, pages * page_tokens, head_dim]."""
    return pages.transpose(1, 2).flatten(2, 3)
