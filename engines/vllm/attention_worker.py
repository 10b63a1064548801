"""vLLM's CPU attention alone, for `harness bench attention`: run by engines/process/turns.py in vLLM's own environment.

What vLLM does once per step and not per layer, its schedule of the work, is done at layout.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

BLOCK_TOKENS = 128  # vLLM's own default on a CPU

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def laid_out(order: dict[str, Any]) -> Callable[[], None]:
    import torch
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    torch.set_num_threads(len(order["cores"]))
    dtype = getattr(torch, order["dtype"])
    batch, context, heads, dim = order["batch"], order["context"], order["query_heads"], order["head_dim"]
    kv_heads = order["kv_heads"]
    blocks = batch * context // BLOCK_TOKENS
    caches = [
        torch.randn(kv_heads, 2 * BLOCK_TOKENS, dim).to(dtype).expand(blocks, -1, -1, -1).contiguous().chunk(2, dim=2)
        for _ in range(order["layers"])
    ]
    table = torch.randperm(blocks, generator=torch.Generator().manual_seed(1)).to(torch.int32).view(batch, -1)
    query = torch.randn(batch, heads, dim).to(dtype)
    out = torch.empty_like(query)
    starts = torch.arange(batch + 1, dtype=torch.int32)
    lengths = torch.full((batch,), context, dtype=torch.int32)
    schedule = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=batch,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        seq_lens=lengths,
        dtype=dtype,
        query_start_loc=starts,
        causal=True,
        sliding_window_size=-1,
        isa=_get_attn_isa(dtype, BLOCK_TOKENS, dim),
        enable_kv_split=True,
    )

    def run() -> None:
        for keys, values in caches:
            ops.cpu_attention_with_kv_cache(
                query, keys, values, out, starts, lengths, dim**-0.5, True, None, -1, table, 0.0, schedule, None
            )

    return run
