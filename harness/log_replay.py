"""The log of a real run beside gpu_only on the simulator: the same requests, due when they were queued there, and as
many blocks. One saturated GPU-only run of vLLM, known beforehand: evidence about op times and scheduling, no blind
prediction. It had prefix caching on, so `keep_preempted_kv` is on here unless said otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, fmean

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.cost import CostTable
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, RequestSpec, TierCapacity
from engines.gpu_only.policy import GpuOnly

PREFIX = "rtx4090_llama31_8b_vllm019"
PREEMPTIONS_THERE = 194  # counted by those who made the run; the log itself does not have them

CoreMaker = Callable[[Capabilities, Limits, CostTable], EngineCore]


@dataclass(frozen=True, slots=True)
class Served:
    """One request; seconds since the first one was queued."""

    prompt_tokens: int
    output_tokens: int
    queued_s: float
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Log:
    requests: tuple[Served, ...]  # in the order in which they were queued
    capabilities: Capabilities
    limits: Limits


@dataclass(frozen=True, slots=True)
class Figures:
    output_tokens_per_s: float
    mean_tpot_s: float
    mean_ttft_s: float


@dataclass(frozen=True, slots=True)
class Replayed:
    requests: tuple[Served, ...]
    steps: int
    preemptions: int
    found_tokens: int


def load_log(folder: Path, layers: int) -> Log:
    """`folder`: where shared/data is, or HARNESS_DATA."""
    logs = folder / "serving_logs"
    meta = json.loads((logs / f"{PREFIX}_meta.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (logs / f"{PREFIX}_requests.jsonl").read_text(encoding="utf-8").splitlines()]
    begin_s = min(line["queued_ts"] for line in lines)
    requests = [
        Served(
            line["input_toks"],
            line["output_toks"],
            line["queued_ts"] - begin_s,
            line["first_token_ts"] - begin_s,
            line["last_token_ts"] - begin_s,
        )
        for line in lines
    ]
    cache, asked = meta["kv_cache"], meta["engine_kwargs"]
    accel = TierCapacity(cache["num_gpu_blocks"], cache["block_size"])
    capabilities = Capabilities(layers, accel, TierCapacity(0, 64), max_model_tokens=asked["max_model_len"])
    limits = Limits(asked["max_num_seqs"], asked["max_num_batched_tokens"])
    return Log(tuple(sorted(requests, key=lambda request: request.queued_s)), capabilities, limits)


def gpu_only_core(capabilities: Capabilities, limits: Limits, costs: CostTable) -> EngineCore:
    return EngineCore(GpuOnly(keep_preempted_kv=True), capabilities, limits, None)


def forgetting_core(capabilities: Capabilities, limits: Limits, costs: CostTable) -> EngineCore:
    return EngineCore(GpuOnly(), capabilities, limits, None)


def replay(log: Log, costs: CostTable, make_core: CoreMaker = gpu_only_core) -> Replayed:
    core, clock = make_core(log.capabilities, log.limits, costs), VirtualClock()
    executor = SimExecutor(log.capabilities, core.placement, costs, clock)
    due = list(enumerate(log.requests))[::-1]
    first_s, last_s = [0.0] * len(due), [0.0] * len(due)
    steps = preemptions = found_tokens = 0
    while due or core.has_work:
        while due and due[-1][1].queued_s <= clock.now():
            _submit(core, *due.pop())
        plan = core.schedule(clock.now())
        if plan is None:
            clock.wait_until(due[-1][1].queued_s)
            continue
        result = executor.run(plan)
        for request_id in core.commit(plan, result).request_ids:
            first_s[request_id] = first_s[request_id] or result.ended_s
            last_s[request_id] = result.ended_s
        steps += 1
        preemptions += len(plan.preempted)
        found_tokens += plan.found_tokens
    requests = [
        Served(there.prompt_tokens, there.output_tokens, there.queued_s, first, last)
        for there, first, last in zip(log.requests, first_s, last_s, strict=True)
    ]
    return Replayed(tuple(requests), steps, preemptions, found_tokens)


def _submit(core: EngineCore, request_id: int, request: Served) -> None:
    if refusal := core.submit(RequestSpec(request_id, request.prompt_tokens, request.output_tokens)):
        raise ValueError(refusal.reason)


def figures(requests: Sequence[Served]) -> Figures:
    """As vLLM's own benchmark defines them; requests of one token have no time between tokens."""
    tokens = sum(request.output_tokens for request in requests)
    several = [request for request in requests if request.output_tokens > 1]
    return Figures(
        tokens / max(request.last_s for request in requests),
        fmean([(each.last_s - each.first_s) / (each.output_tokens - 1) for each in several]),
        fmean([request.first_s - request.queued_s for request in requests]),
    )


def latency_correlation(a: Sequence[Served], b: Sequence[Served]) -> float:
    """Of end-to-end latencies, request by request."""
    return correlation(*[[each.last_s - each.queued_s for each in requests] for requests in (a, b)])
