"""Cut a workload once, before any engine sees it, to what every engine of a run can hold.

Not a policy of any engine: all get the same shortened requests, and the report says how much was cut.
"""

from __future__ import annotations

from dataclasses import replace

from workloads.packed import PackedRequests
from workloads.types import Clipping, Request, Workload, WorkloadError

MIN_REQUEST_TOKENS = 2  # one of prompt, one of output


def clip(workload: Workload, max_request_tokens: int) -> Workload:
    """No request longer than `max_request_tokens`, prompt and output together; the others stay as they are."""
    if max_request_tokens < MIN_REQUEST_TOKENS:
        raise WorkloadError(f"max_request_tokens must be {MIN_REQUEST_TOKENS} or more, not {max_request_tokens}")
    if workload.clipped is not None:
        raise WorkloadError(f"workload {workload.name} is already clipped, to {workload.clipped.limit_tokens} tokens")
    requests = PackedRequests(_clip_request(request, max_request_tokens) for request in workload.requests)
    clipped = prompts_cut = outputs_cut = 0
    for before, after in zip(workload.requests, requests, strict=True):
        clipped += after != before
        prompts_cut += before.prompt_tokens - after.prompt_tokens
        outputs_cut += before.output_tokens - after.output_tokens
    clipping = Clipping(max_request_tokens, clipped, prompts_cut, outputs_cut)
    return replace(workload, requests=requests, clipped=clipping)


def _clip_request(request: Request, limit: int) -> Request:
    """The output goes first; the prompt is cut only where it leaves no room for a single token of output."""
    if request.prompt_tokens + request.output_tokens <= limit:
        return request
    prompt_tokens = min(request.prompt_tokens, limit - 1)
    return replace(request, prompt_tokens=prompt_tokens, output_tokens=limit - prompt_tokens)
