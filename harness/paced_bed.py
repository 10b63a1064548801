"""A bed of real tensors for steady.py: a small model, real threads, paced to a machine's proportions."""

from __future__ import annotations

import torch

from engines.backends.pacing import ModelledPace, NativePace, PassPace, StepPace
from engines.backends.torch_backend import TorchExecutor
from engines.core.clock import Clock
from engines.core.cost import CostTable
from engines.core.executor import Executor
from engines.core.ops import Program
from engines.core.placement import Placement
from engines.core.types import Capabilities, StepPlan
from harness.environment import allowed_cores
from harness.real import claim_cores, claim_priority, host_pool, open_model, paced_clock

LONGEST_TOKENS = 4096
WARM_ROWS = 512


class PacedBed:
    """Opens the model once and claims the accelerator's core for the rest of the process."""

    def __init__(self, model: str, costs: CostTable) -> None:
        cores = allowed_cores()
        claimed = claim_cores(1)
        self._spare = [core for core in cores if core not in claimed]
        self._model = open_model(model, "float32", "cpu", 0, LONGEST_TOKENS, WARM_ROWS)
        self._clock = paced_clock(claim_priority())
        self.costs = costs
        self._pace = _LatePace(self._clock, costs)

    def with_costs(self, costs: CostTable) -> PacedBed:
        """The same model at another pace."""
        self.costs = costs
        return self

    def executor(self, capabilities: Capabilities, placement: Placement, slots: int) -> Executor:
        self._pace = _LatePace(self._clock, self.costs)
        cpu = torch.device("cpu")
        pool = host_pool(1, self._spare)
        return TorchExecutor(self._model, capabilities, placement, self._pace, slots, cpu, torch.float32, pool=pool)

    def paced_from_here(self) -> None:
        self._pace.begin()


class _LatePace:
    """Full speed until it is told to begin."""

    def __init__(self, clock: Clock, costs: CostTable) -> None:
        self._native = NativePace(clock)
        self._modelled = ModelledPace(clock, costs)
        self._is_paced = False

    def begin(self) -> None:
        self._is_paced = True

    def step(self, plan: StepPlan, program: Program) -> StepPace:
        return self._modelled.step(plan, program) if self._is_paced else self._native.step(plan, program)

    def flight(self, plan: StepPlan) -> PassPace:
        return self._modelled.flight(plan) if self._is_paced else self._native.flight(plan)
