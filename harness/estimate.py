"""About how long a cell will serve, on its own clock, as if all KV stayed on the accelerator. For `harness plan` only.

Arithmetic on means, good to a factor of about two: it tells minutes from days, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from engines.core.cost import Work
from engines.model.config import load_config
from harness.costs import predictor
from harness.plan import CellSpec
from harness.sizing import size
from workloads import Request


def serving_s(cell: CellSpec, requests: Sequence[Request]) -> float | None:
    """None where nothing is modelled, so that nothing can be said."""
    costs = predictor(cell)
    if costs is None:
        return None
    layers = load_config(cell.model).layers
    prompts = sum(request.prompt_tokens for request in requests)
    outputs = sum(request.output_tokens for request in requests)
    batch, context = _typical_batch(cell, requests)
    chunk = min(cell.budget.max_batch_tokens, prompts)
    prefill_s = prompts / chunk * layers * costs.linear_s(chunk)
    attention_s = costs.accel_attention_s(Work(decode_rows=batch, decode_kv_tokens=batch * context))
    step_s = layers * (costs.linear_s(batch) + attention_s) + costs.head_s(batch) + costs.step_overhead_s
    return max(requests[-1].arrival_s, prefill_s + outputs / batch * step_s)


def _typical_batch(cell: CellSpec, requests: Sequence[Request]) -> tuple[int, int]:
    """How many requests decode together when the KV is full, and how much context each has by then."""
    tokens_each = fmean(request.prompt_tokens + request.output_tokens / 2 for request in requests)
    fitting = int(size(cell).accel_kv_tokens / tokens_each)
    return max(1, min(fitting, cell.budget.max_batch, len(requests))), int(tokens_each)
