"""Regret: what each step lost by its mode. The cell's journal is replayed, and every step is priced in every mode.

The state of a step is taken as it was: who had been admitted where, who was in flight. So regret is about the modes;
where requests' KV should have been is another question. Prices are those of the cost model that the run was paced or
simulated with, else of its profile: steady rates of each mode, not what the step happened to take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.apex.situation import Situation
from engines.core.cost import CostTable
from engines.core.policy import Decision, Policy, Proposal, View
from engines.core.request import Request
from engines.core.scheduler import EngineCore
from engines.core.types import Mode, Tier
from harness.journal import replay
from harness.wrapped import Wrapped

if TYPE_CHECKING:
    from harness.plan import CellSpec

MOST_JUDGED = 1000  # steps; of longer runs every second, third, ... one


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one step: the mode it ran in, the best one, and the share of its time that the best one would have saved."""

    step: int
    mode: Mode
    best: Mode
    lost: float


@dataclass(slots=True)
class Judge(Wrapped):
    """A policy that decides as another one does and prices what else could have been done."""

    policy: Policy
    costs: CostTable
    every: int = 1
    verdicts: list[Verdict] = field(default_factory=list)
    _steps: int = 0

    def decide(self, view: View) -> Decision:
        decision = self.policy.decide(view)
        self._steps += 1
        if self._steps % self.every == 0:
            self.verdicts.append(self._judged(view, decision))
        return decision

    def _judged(self, view: View, decision: Decision) -> Verdict:
        rates = _rates(replace(view, predict=self.costs), decision)
        best = max(rates, key=rates.__getitem__, default=decision.mode)
        taken, most = rates.get(decision.mode, 0.0), rates.get(best, 0.0)
        if not most or decision.mode not in rates:  # no choice, or one that is not priced
            return Verdict(self._steps, decision.mode, decision.mode, 0.0)
        return Verdict(self._steps, decision.mode, best if most > taken else decision.mode, 1.0 - taken / most)


def _rates(view: View, decision: Decision) -> dict[Mode, float]:
    """Tokens per second in every mode that this state allows; empty where nobody decodes on the host."""
    proposal = _proposal(view, decision)
    if not proposal.host_decodes and not view.cohorts:
        return {}
    return Situation(proposal, view).rates()


def _proposal(view: View, decision: Decision) -> Proposal:
    """What the decision found: its own rows of the accelerator's, and everybody who could decode on the host."""
    proposal = view.propose()
    proposal.decodes = [request for batch in decision.batches for request in batch.decodes]
    proposal.prefills = [prefill for batch in decision.batches for prefill in batch.prefills]
    taken = {prefill.request for prefill in proposal.prefills}
    taken.update(request for request, _ in decision.moves)
    taken.update(preemption.request for preemption in decision.preemptions)
    proposal.host_decodes = [request for request in view.running if _could_decode(request) and request not in taken]
    return proposal


def _could_decode(request: Request) -> bool:
    return request.tier is Tier.HOST and request.pending == 1 and not request.in_flight


@dataclass(frozen=True, slots=True)
class Hindsight:
    """Shares of the time of the steps that were judged."""

    regret: float
    by_mode: Mapping[Mode, float]
    by_best: Mapping[Mode, float]

    @staticmethod
    def of(verdicts: Sequence[Verdict], took_s: Mapping[int, float]) -> Hindsight | None:
        whole_s = lost_s = 0.0
        by_mode: dict[Mode, float] = defaultdict(float)
        by_best: dict[Mode, float] = defaultdict(float)
        for verdict in verdicts:
            step_s = took_s[verdict.step]
            whole_s += step_s
            lost_s += verdict.lost * step_s
            by_mode[verdict.mode] += step_s
            by_best[verdict.best] += step_s
        if not whole_s:
            return None
        return Hindsight(lost_s / whole_s, _shares(by_mode, whole_s), _shares(by_best, whole_s))

    def metrics(self) -> dict[str, float]:
        metrics = {"regret_share": self.regret}
        metrics |= {f"mode_share_{mode.value}": share for mode, share in self.by_mode.items()}
        return metrics | {f"best_share_{mode.value}": share for mode, share in self.by_best.items()}


def _shares(seconds: Mapping[Mode, float], whole_s: float) -> dict[Mode, float]:
    return {mode: part_s / whole_s for mode, part_s in seconds.items()}


def judge(spec: CellSpec, journal: Path, read_took_s: Callable[[], Mapping[int, float]]) -> Hindsight | str:
    """Replays the journal of a cell of ours; `read_took_s`: what each step took, read only where there is a choice to
    judge. A sentence where nothing can be said.
    """
    from harness.build import core_for
    from harness.costs import cost_table, known_costs, predictor

    costs = cost_table(spec) or known_costs(spec)  # what modes really take, whatever was believed
    if costs is None:
        return "nothing prices a mode: give a profile"
    core = core_for(spec)
    if not core.policy.uses_host_kv:
        return "its KV is on the GPU alone: it has one mode"
    took_s = read_took_s()
    judging = Judge(core.policy, costs, every=1 + len(took_s) // MOST_JUDGED)
    replayed = replay(journal, EngineCore(judging, core.capabilities, core.limits, predictor(spec)))
    if replayed.first_difference is not None:
        return f"the journal does not replay: step {replayed.first_difference} came out differently"
    return Hindsight.of(judging.verdicts, took_s) or "no step was judged"
