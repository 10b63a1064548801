"""vLLM's CPU attention alone, for `harness bench attention`: run in vLLM's own environment, orders as JSON lines.

A shape is laid out with {"query_heads": ..., "cores": [...]}, and read once per {"run": true}. What vLLM does once per
step and not per layer, its schedule of the work, is done at layout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

BLOCK_TOKENS = 128  # vLLM's own default on a CPU

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints does not get in between
    run: Callable[[], None] = _nothing
    for line in sys.stdin:
        order = json.loads(line)
        if "run" in order:
            begun_s = time.perf_counter()
            run()
            answer: dict[str, Any] = {"seconds": time.perf_counter() - begun_s}
        else:
            run = laid_out(order)
            answer = {"can": True}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def laid_out(order: dict[str, Any]) -> Callable[[], None]:
    import torch
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    cores = order["cores"]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
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


def _nothing() -> None:
    raise SystemExit("run before a shape was laid out")


if __name__ == "__main__":
    main()
