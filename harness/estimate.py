"""About how long a cell will serve, on its own clock, as if all KV stayed where it is placed. For `harness plan` only.

Arithmetic on means, good to a factor of about two: it tells minutes from days, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from engines.core.cost import CostTable, Work
from engines.core.pipeline import lower, makespan
from engines.core.placement import Part, Placement
from engines.core.placing import dealt
from engines.core.types import Batch, BlockChanges, Mode, PrefillChunk, StepPlan
from engines.model.config import load_config
from harness.costs import known_costs
from harness.plan import CellSpec
from harness.sizing import size
from workloads import Request


def serving_s(cell: CellSpec, requests: Sequence[Request]) -> float | None:
    """None where nothing is modelled, so that nothing can be said."""
    costs, placement = known_costs(cell), size(cell).placement
    if costs is None:
        return None
    if placement is not None and not placement.all_resident:
        return max(requests[-1].arrival_s, _placed_s(cell, requests, costs, placement))
    layers = load_config(cell.model).layers
    prompts = sum(request.prompt_tokens for request in requests)
    outputs = sum(request.output_tokens for request in requests)
    batch, context = _typical_batch(cell, requests)
    chunk = min(cell.budget.max_batch_tokens, prompts)
    prefill_s = prompts / chunk * layers * costs.linear_s(chunk)
    attention_s = costs.accel_attention_s(Work(decode_rows=batch, decode_kv_tokens=batch * context))
    step_s = layers * (costs.linear_s(batch) + attention_s) + costs.head_s(batch) + costs.step_overhead_s
    return max(requests[-1].arrival_s, prefill_s + outputs / batch * step_s)


def _placed_s(cell: CellSpec, requests: Sequence[Request], costs: CostTable, placement: Placement) -> float:
    """By the lowering itself. What may be computed elsewhere for prompts, is."""
    batch, context = _typical_batch(cell, requests)
    prompts = sum(request.prompt_tokens for request in requests)
    chunk = min(cell.budget.max_batch_tokens, prompts)
    outputs = sum(request.output_tokens for request in requests)
    nothing = [0.0] * len(Part) * len(placement.layers)
    for_prompts = dealt(placement, nothing) if placement.replaceable else placement
    prefill_s = _step_s(Batch(prefills=(PrefillChunk(0, 0, 0, chunk, True),)), for_prompts, costs)
    step_s = _step_s(Batch(tuple(range(batch)), (context,) * batch), placement, costs)
    return prompts / chunk * prefill_s + outputs / batch * step_s


def _step_s(batch: Batch, placement: Placement, costs: CostTable) -> float:
    plan = StepPlan(0, Mode.PLACED, (batch,), BlockChanges())
    return makespan(lower(plan, placement), plan, costs)[0] + costs.step_overhead_s


def _typical_batch(cell: CellSpec, requests: Sequence[Request]) -> tuple[int, int]:
    """How many requests decode together when the KV is full, and how much context each has by then."""
    tokens_each = fmean(request.prompt_tokens + request.output_tokens / 2 for request in requests)
    fitting = int(size(cell).accel_kv_tokens / tokens_each)
    return max(1, min(fitting, cell.budget.max_batch, len(requests))), int(tokens_each)
