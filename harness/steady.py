"""Steady decoding: so many requests on either side, all at one context, for so many steps. What the benches of the
hybrid modes measure: nobody arrives, ends or changes sides.

Prompts are computed beforehand, on real backends at full speed; only the steps that count are paced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.cost import CostTable, Predictor
from engines.core.executor import Executor
from engines.core.placement import Placement
from engines.core.policy import BatchDecision, Decision, Policy, View
from engines.core.roofline import MachineRates, Roofline
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, Mode, RequestSpec, Tier, TierCapacity
from engines.hardware import load_hardware
from engines.model.config import load_config
from harness.costs import machine_rates, model_costs, scaled_costs
from harness.experiment import Pace
from harness.sizing import HOST_PAGE_TOKENS
from harness.wrapped import Wrapped

PREFILL_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class State:
    """How many decode on either side, and how many tokens of the modelled workload each attends to at first."""

    context: int
    accel_rows: int
    host_rows: int


@dataclass(frozen=True, slots=True)
class Machine:
    """A catalogue machine with a large model: as it is, or as a small model in its proportions and in slow motion."""

    hardware: str
    reference: str = "llama-2-7b"
    model: str = "tiny-30m"
    time_scale: float = 1.0
    tokens_each: int = 1
    host_speed: float = 1.0  # times the catalogue's rate of host attention

    def itself(self) -> Roofline:
        costs = model_costs(load_config(self.reference), "float16")
        return Roofline(costs, self._rates(machine_rates(load_hardware(self.hardware), "float16")))

    def in_small(self) -> Roofline:
        pace = Pace(reference_model=self.reference, time_scale=self.time_scale, tokens_each=self.tokens_each)
        scaled = scaled_costs(load_config(self.reference), load_config(self.model), load_hardware(self.hardware), pace)
        return Roofline(scaled.model, self._rates(scaled.machine), self.time_scale)

    def _rates(self, rates: MachineRates) -> MachineRates:
        return replace(rates, host_attention_bytes_per_s=rates.host_attention_bytes_per_s * self.host_speed)


@dataclass(frozen=True, slots=True)
class Rate:
    """`overruns`: share of the ops that were late, 0 where nothing real stands behind the times."""

    tokens_per_s: float
    overruns: float


class Bed(Protocol):
    """Where the steps run."""

    costs: CostTable

    def executor(self, capabilities: Capabilities, placement: Placement, slots: int) -> Executor: ...

    def paced_from_here(self) -> None:
        """What was computed so far was preparation."""


class SimBed:
    def __init__(self, costs: CostTable) -> None:
        self.costs = costs

    def executor(self, capabilities: Capabilities, placement: Placement, slots: int) -> Executor:
        return SimExecutor(capabilities, placement, self.costs, VirtualClock())

    def paced_from_here(self) -> None:
        """Virtual time costs nothing."""


def steady_rate(
    policy: Policy,
    state: State,
    bed: Bed,
    predict: Predictor,
    steps: tuple[int, int],
    layers: int,
    tokens_each: int = 1,
) -> Rate:
    """`steps`: how many go by unmeasured, and how many count."""
    core = _core(policy, state, predict, sum(steps), layers, tokens_each)
    executor = bed.executor(core.capabilities, core.placement, core.limits.max_batch)
    try:
        for request_id in range(state.accel_rows + state.host_rows):
            spec = RequestSpec(request_id, state.context // tokens_each, 2 * sum(steps) + 2)
            executor.register(request_id, [3 + request_id % 97] * spec.prompt_tokens)
            if refusal := core.submit(spec):
                raise ValueError(refusal.reason)
        while core.waiting:
            _step(core, executor)
        bed.paced_from_here()
        for _ in range(steps[0]):
            begin_s = _step(core, executor).ended_s
        taken = [_step(core, executor) for _ in range(steps[1])]
    finally:
        executor.close()
    ops = sum(step.ops for step in taken)
    tokens = sum(step.tokens for step in taken)
    return Rate(tokens / (taken[-1].ended_s - begin_s), sum(step.overruns for step in taken) / max(ops, 1))


@dataclass(frozen=True, slots=True)
class _Taken:
    ended_s: float
    tokens: int
    ops: int
    overruns: int


def _step(core: EngineCore, executor: Executor) -> _Taken:
    plan = core.schedule(0.0)
    assert plan is not None
    result = executor.run(plan)
    events = core.commit(plan, result)
    return _Taken(result.ended_s, len(events.request_ids), result.units.ops, result.units.overruns)


def _core(policy: Policy, state: State, predict: Predictor, steps: int, layers: int, tokens_each: int) -> EngineCore:
    """Everybody's KV on the accelerator is one page, so that none is free: nobody can be brought back."""
    longest = state.context // tokens_each + 2 * steps + 2
    page = 16 * -(-longest // 16)
    host_pages = state.host_rows * -(-longest // HOST_PAGE_TOKENS)
    capabilities = Capabilities(
        layers,
        TierCapacity(state.accel_rows, page),
        TierCapacity(host_pages, HOST_PAGE_TOKENS),
        max_model_tokens=longest,
    )
    rows = state.accel_rows + state.host_rows
    limits = Limits(rows, max(PREFILL_TOKENS, rows, longest))
    return EngineCore(_Placed(policy, state.accel_rows), capabilities, limits, predict)


@dataclass(frozen=True, slots=True)
class _Placed(Wrapped):
    """The first so many requests go to the accelerator, the others to the host; then the policy takes over."""

    policy: Policy
    accel_rows: int

    def decide(self, view: View) -> Decision:
        if not view.waiting:
            return self.policy.decide(view)
        proposal = view.propose()
        proposal.admit(lambda request: (Tier.ACCEL if request.request_id < self.accel_rows else Tier.HOST,))
        whole = [prefill for prefill in proposal.prefills if prefill.tokens == prefill.request.known]
        return proposal.decision(Mode.GPU_ONLY, BatchDecision((), whole))
