"""Decode attention on the CPU: the native kernels, typed and with the shapes of their arguments.

One call serves one layer for a whole batch of sequences that each decode one token. K and V live in paged stores
[num_pages, kv_heads, page_tokens, head_dim] (float32, float16 or bfloat16; arithmetic is float32), so that one head's
part of a page is one run of memory. The first two dimensions may be strided (a view of a larger store), the last two
must be contiguous. Page sizes are free; 256 tokens are fast, 16 take about twice as long.

The bits of a row's result depend on that row alone: not on the batch around it, the page size, or the threads.

This is not the attention of prompts, and it allocates no tensors: callers own every one. Wrong dtypes raise TypeError;
wrong shapes, strides, devices, page ids and lengths raise ValueError; a closed pool raises PoolError.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engines.apex import _cpu
from engines.apex._cpu import (
    CHUNK_TOKENS,
    Pool,
    PoolError,
    available_isas,
    get_isa,
    get_prefetch,
    set_isa,
    set_prefetch,
)

__all__ = [
    "CHUNK_TOKENS",
    "Pool",
    "PoolError",
    "append_kv",
    "available_isas",
    "copy_tokens",
    "decode_attention",
    "gather_blocks",
    "get_isa",
    "get_prefetch",
    "merge_partials",
    "scatter_blocks",
    "set_isa",
    "set_prefetch",
    "submit_decode_attention",
    "using_isa",
]


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    """Calls that start meanwhile run one set of kernels; the one before comes back."""
    before = get_isa()
    set_isa(name)
    try:
        yield
    finally:
        set_isa(before)


def decode_attention(
    query: torch.Tensor,  # [rows, q_heads, head_dim] float32, float16 or bfloat16
    key_pages: torch.Tensor,  # [num_pages, kv_heads, page_tokens, head_dim]
    value_pages: torch.Tensor,  # the same shape and dtype as key_pages
    page_table: torch.Tensor,  # [rows, max_pages] int32, page ids in the order of the sequence
    context_lens: torch.Tensor,  # [rows] int32, tokens to attend to, the current one included; at least 1
    out: torch.Tensor,  # [rows, q_heads, head_dim] float32, float16 or bfloat16, written
    scale: float,  # usually head_dim ** -0.5
    pool: Pool | None = None,
    lse: torch.Tensor | None = None,  # [rows, q_heads] float32, written: log of the sum of exp(scaled scores)
) -> None:
    """Attend to the paged context of every row, in this thread or, given a pool, in the pool's threads alone.

    Query head h uses K/V head h // (q_heads // kv_heads). Returns when `out` is written; other Python threads run
    meanwhile.
    """
    _cpu.decode_attention(query, key_pages, value_pages, page_table, context_lens, out, scale, pool, lse)


def submit_decode_attention(
    pool: Pool,
    query: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    page_table: torch.Tensor,
    context_lens: torch.Tensor,
    out: torch.Tensor,
    scale: float,
    lse: torch.Tensor | None = None,
) -> int:
    """Start `decode_attention` in the pool's threads and return a ticket for `pool.done` and `pool.wait` at once.

    Page table and lengths are copied and may change right away. Query, pages and outputs are kept alive, and must not
    be written (K and V of these sequences) or read (outputs) before the ticket is done. Jobs run in the order of
    submission; with 256 in flight the next one waits for the oldest.
    """
    return pool.submit_decode_attention(query, key_pages, value_pages, page_table, context_lens, out, scale, lse)


def append_kv(
    key: torch.Tensor,  # [rows, kv_heads, head_dim]
    value: torch.Tensor,  # [rows, kv_heads, head_dim]
    key_pages: torch.Tensor,  # [num_pages, kv_heads, page_tokens, head_dim], written
    value_pages: torch.Tensor,  # the same, written
    page_ids: torch.Tensor,  # [rows] int32
    offsets: torch.Tensor,  # [rows] int32, token within the page
) -> None:
    """Write one token per row into its page, converting to the pages' dtype (to nearest even)."""
    _cpu.append_kv(key, value, key_pages, value_pages, page_ids, offsets)


def copy_tokens(
    src_pages: torch.Tensor,  # [num_pages, kv_heads, page_tokens, head_dim], or contiguous [kv_heads, tokens, head_dim]
    src_table: torch.Tensor | None,  # [n] int32, pages of the sequence in order; None for a contiguous source
    dst_pages: torch.Tensor,  # either form as well, written
    dst_table: torch.Tensor | None,  # [m] int32
    tokens: int,
    *,
    src_start: int = 0,
    dst_start: int = 0,
) -> None:
    """Copy tokens [src_start, src_start + tokens) of one sequence to dst_start of another store, for K or for V.

    The page sizes may differ (the accelerator's blocks hold 16 tokens, host pages many more), and so may the dtypes.
    """
    _cpu.copy_tokens(src_pages, src_table, dst_pages, dst_table, tokens, src_start, dst_start)


def gather_blocks(
    pages: torch.Tensor,  # [num_pages, kv_heads, page_tokens, head_dim]
    table: torch.Tensor,  # [n] int32
    out: torch.Tensor,  # [kv_heads, tokens, head_dim], written in full
) -> None:
    """Collect the first tokens of a paged sequence into one contiguous tensor, as a transfer wants them."""
    _cpu.copy_tokens(pages, table, out, None, out.shape[1])


def scatter_blocks(
    source: torch.Tensor,  # [kv_heads, tokens, head_dim]
    pages: torch.Tensor,  # [num_pages, kv_heads, page_tokens, head_dim], written
    table: torch.Tensor,  # [n] int32
) -> None:
    """The way back: distribute a contiguous tensor over the pages of a sequence."""
    _cpu.copy_tokens(source, None, pages, table, source.shape[1])


def merge_partials(
    out_a: torch.Tensor,  # [rows, q_heads, head_dim]
    lse_a: torch.Tensor,  # [rows, q_heads] float32, -inf where the part is empty
    out_b: torch.Tensor,  # the same shape and dtype as out_a
    lse_b: torch.Tensor,  # [rows, q_heads] float32
    out: torch.Tensor,  # the same shape and dtype, written; may be out_a or out_b
    lse_out: torch.Tensor | None = None,  # [rows, q_heads] float32, written; may be lse_a or lse_b
) -> None:
    """Merge attentions over two disjoint parts of a context into that over both, exactly (up to rounding)."""
    _cpu.merge_partials(out_a, lse_a, out_b, lse_b, out, lse_out)
