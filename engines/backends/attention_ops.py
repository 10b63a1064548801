"""Attention and KV traffic of the accelerator side: one small seam between the C++ kernels (cpu) and torch ops (cuda).

Both do the same to the same pages. Prefill attention is torch on both: it is compute-bound, and SDPA is good at that.
"""

from typing import Protocol

import torch
from torch.nn import functional

from engines.apex import attention as native
from engines.backends.rows import PrefillSegment, Rows


class PagedOps(Protocol):
    """`query [rows, query_heads, head_dim]`, pages `[blocks, kv_heads, page_tokens, head_dim]`."""

    def append(
        self, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows
    ) -> None: ...

    def decode(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows, out: torch.Tensor
    ) -> None: ...


class NativeOps:
    """The C++ kernels in the calling thread: on the `cpu` backend that thread *is* the accelerator."""

    def append(
        self, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows
    ) -> None:
        native.append_kv(key, value, keys, values, rows.page_ids, rows.offsets)

    def decode(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows, out: torch.Tensor
    ) -> None:
        scale = query.shape[-1] ** -0.5
        native.decode_attention(query, keys, values, rows.decode_tables, rows.decode_contexts, out, scale)


class TorchOps:
    """The same in torch ops that run anywhere; written for CUDA, checked against the C++ kernels on a CPU."""

    def append(
        self, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows
    ) -> None:
        pages, offsets = rows.page_ids.long(), rows.offsets.long()
        keys[pages, :, offsets] = key.to(keys.dtype)
        values[pages, :, offsets] = value.to(values.dtype)

    def decode(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows, out: torch.Tensor
    ) -> None:
        """Gather each row's pages into one padded context, mask the padding."""
        tables = rows.decode_tables.long()
        key, value = _contiguous(keys[tables]), _contiguous(values[tables])  # [rows, kv_heads, context, head_dim]
        length = key.shape[2]
        seen = torch.arange(length, device=query.device) < rows.decode_contexts[:, None]
        attended = functional.scaled_dot_product_attention(
            query[:, :, None], key, value, attn_mask=seen[:, None, None], enable_gqa=query.shape[1] != key.shape[1]
        )
        out.copy_(attended[:, :, 0])


def prefill(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    segment: PrefillSegment,
    out: torch.Tensor,
) -> None:
    """Causal attention of one chunk: over itself when it starts the request, else over the pages written so far.

    query, out: `[length, query_heads, head_dim]`; key, value: the chunk's own `[length, kv_heads, head_dim]`.
    """
    queries = query.transpose(0, 1)[None]
    grouped = query.shape[1] != key.shape[1]
    if segment.start == 0:
        context_keys, context_values = key.transpose(0, 1)[None], value.transpose(0, 1)[None]
        attended = functional.scaled_dot_product_attention(
            queries, context_keys, context_values, is_causal=True, enable_gqa=grouped
        )
    else:
        end = segment.start + segment.length
        context_keys = _contiguous(keys[segment.blocks][None])[:, :, :end].to(query.dtype)
        context_values = _contiguous(values[segment.blocks][None])[:, :, :end].to(query.dtype)
        seen = torch.ones(segment.length, end, dtype=torch.bool, device=query.device).tril(segment.start)
        attended = functional.scaled_dot_product_attention(
            queries, context_keys, context_values, attn_mask=seen, enable_gqa=grouped
        )
    out.copy_(attended[0].transpose(0, 1))


def _contiguous(pages: torch.Tensor) -> torch.Tensor:
    """[rows, pages, kv_heads, page_tokens, head_dim] -> [rows, kv_heads, pages * page_tokens, head_dim]."""
    return pages.transpose(1, 2).flatten(2, 3)
