"""About how long this machine computes at a simulated cell, from start to summary. For `harness plan` only.

Steps are counted on means, as in estimate.py; what a step costs is what `harness bench sim` found, times how fast plain
Python runs here and now. Good to a factor of about two for a run, less for a single cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean

from engines.core.clock import stopwatch
from engines.core.policy import LearningPolicy, PlacingPolicy, Policy, SteadyPolicy
from engines.registry import is_policy, make_engine
from harness.plan import CellSpec
from harness.sizing import size
from workloads import Request

# Seconds, on the machine on which YARDSTICK_S was taken.
YARDSTICK_S = 0.020
START_S = 1.5  # a process, its imports, the workload, the summary
STEADY_STEP_S = 0.12e-3  # most steps are not decided (core/stretch.py)
WEIGHED_STEP_S = 0.9e-3  # both sides are weighed in every step
PLACED_STEP_S = 0.6e-3  # an op for every matrix
LEARNING_STEP_S = 9e-3  # and a placement for every size of step
LEAN_SHARE = 0.5  # of the same on another machine, for its figures only
HOST_ROWS_SHARE = 0.2  # of those who decode on the host, those that yield a token in a step


def computing_s(cell: CellSpec, requests: Sequence[Request]) -> float | None:
    """None where time passes by a clock, or whoever serves decides for itself."""
    if cell.backend != "sim" or not is_policy(cell.engine.kind):
        return None
    policy: Policy = make_engine(cell.engine.kind, cell.engine.options)
    serving_s = steps_about(cell, policy, requests) * _step_s(policy)
    return slowness() * (START_S + serving_s * (1.0 + LEAN_SHARE * cell.draws))


def _step_s(policy: Policy) -> float:
    if isinstance(policy, LearningPolicy):
        return LEARNING_STEP_S
    if isinstance(policy, PlacingPolicy) and policy.places_weights:
        return PLACED_STEP_S
    lengths_decide = policy.uses_host_kv and not isinstance(policy, PlacingPolicy)
    return STEADY_STEP_S if isinstance(policy, SteadyPolicy) and not lengths_decide else WEIGHED_STEP_S


def steps_about(cell: CellSpec, policy: Policy, requests: Sequence[Request]) -> float:
    """A token for everybody who fits per step, and chunks of prompts."""
    sizing, budget = size(cell), cell.budget
    limit = cell.max_request_tokens or sizing.longest_request_tokens
    prompts = [min(request.prompt_tokens, limit - 1) for request in requests]
    outputs = [min(request.output_tokens, limit - prompt) for request, prompt in zip(requests, prompts, strict=True)]
    tokens_each = fmean(prompts) + fmean(outputs) / 2
    most = min(budget.max_batch, len(requests))
    on_accel = max(1.0, min(most, sizing.accel_kv_tokens / tokens_each))
    on_host = min(most - on_accel, sizing.host_kv_tokens / tokens_each) if policy.uses_host_kv else 0.0
    rows = on_accel + HOST_ROWS_SHARE * max(0.0, on_host)
    return max(sum(outputs) / rows, max(outputs)) + sum(prompts) / budget.max_batch_tokens


@lru_cache(maxsize=1)
def slowness() -> float:
    """How much longer a little plain Python takes here than where the constants are from: the best of some tries."""
    return min(_yardstick_s() for _ in range(3)) / YARDSTICK_S


def _yardstick_s() -> float:
    begin_s, sums = stopwatch(), dict.fromkeys(range(256), 0.0)
    for count in range(150_000):
        sums[count & 255] = sums.get(count & 255, 0.0) + count * 1.5
    return stopwatch() - begin_s
