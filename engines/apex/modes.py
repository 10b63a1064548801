"""What each mode of APEX does with the requests of a step: who is in which batch, who keeps up, who flies.

Without a predictor everything is as full as it can be; nothing is priced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from engines.apex.situation import Situation, fitting
from engines.core.policy import CohortDecision, Decision
from engines.core.request import Request
from engines.core.types import AWAITED, Mode

SPARE_PATIENCE = 0.25  # of a layer's time, on top of the predicted stall: predictions are off by some per cent


@dataclass(frozen=True, slots=True)
class Modes:
    """Of one situation. `most_cohorts`: how many may be in flight."""

    situation: Situation
    most_cohorts: int

    def decision(self, mode: Mode) -> Decision:
        """A mode that cannot be run as things stand becomes the nearest that can."""
        if self.situation.view.cohorts and mode in (Mode.GPU_ONLY, Mode.ASYMMETRIC):
            return self._overlapping(Mode.ASYNC_OVERLAP)
        if mode is Mode.GPU_ONLY and self.situation.work.tokens:
            return self._alone()
        if mode in (Mode.GPU_ONLY, Mode.ASYMMETRIC):
            return self._asymmetric()
        return self._overlapping(mode)

    def toward(self, mode: Mode) -> Decision:
        """The same for a mode that is meant to last: cohorts that it would leave hanging land first, and nobody takes
        off.
        """
        if self.situation.view.cohorts and mode in (Mode.GPU_ONLY, Mode.ASYMMETRIC):
            return self._overlapping(Mode.FULL_OVERLAP, takes_off=False)
        return self.decision(mode)

    def _alone(self) -> Decision:
        proposal = self.situation.proposal
        return proposal.decision(Mode.GPU_ONLY, proposal.batch(()))

    def _asymmetric(self) -> Decision:
        proposal, host = self.situation.proposal, self.situation.proposal.host_decodes
        if not self.situation.work.tokens:  # the host's alone take turns with each other
            first, second = host[::2], host[1::2]
        elif self.situation.view.predict is None:
            first, second = [], host
        else:
            first, second = (half.host for half in self.situation.pipeline.halves)
        return proposal.decision(Mode.ASYMMETRIC, *proposal.halves(first, second))

    def _overlapping(self, mode: Mode, takes_off: bool = True) -> Decision:
        situation, proposal = self.situation, self.situation.proposal
        if not situation.work.tokens:  # nothing to overlap with: everybody is waited for
            cohorts = [CohortDecision(cohort, patience_us=AWAITED) for cohort in situation.view.cohorts]
            if situation.host:
                cohorts.append(CohortDecision(None, situation.host, AWAITED))
            return proposal.decision(mode, proposal.batch(()), cohorts=cohorts)
        joined = self._keeping_up() if mode is Mode.FULL_OVERLAP and self._may_join() else []
        cohorts = [CohortDecision(None, joined, self._patience_us(len(joined)))] if joined else []
        cohorts.extend([CohortDecision(cohort) for cohort in situation.view.cohorts])
        if takes_off and len(joined) < len(situation.host) and len(situation.view.cohorts) < self.most_cohorts:
            cohorts.append(CohortDecision(None, self._cohort(joined)))
        return proposal.decision(mode, proposal.batch(()), cohorts=cohorts)

    def _may_join(self) -> bool:
        """Who overslept flies on as a cohort: not without end."""
        return len(self.situation.view.cohorts) < 2 * self.most_cohorts

    def _keeping_up(self) -> list[Request]:
        situation = self.situation
        return situation.host if situation.view.predict is None else situation.host[: situation.joined]

    def _patience_us(self, joined: int) -> int:
        """The predicted stall, and some more."""
        situation = self.situation
        if situation.view.predict is None:
            return AWAITED
        stall_s = max(0.0, situation.host_s(joined) - situation.accel_s)
        return int((stall_s + SPARE_PATIENCE * (situation.linear_s(joined) + situation.accel_s)) * 1e6)

    def _cohort(self, joined: Sequence[Request]) -> list[Request]:
        """Of those who do not keep up as many as the host finishes in a window, the oldest first: nobody starves."""
        situation, keeping_up = self.situation, set(joined)
        behind = [request for request in situation.proposal.host_decodes if request not in keeping_up]
        if situation.view.predict is None:
            return behind[: -(-len(behind) // self.most_cohorts)]
        kv = [0, *accumulate([request.known for request in behind])]
        return behind[: max(1, fitting(situation.predict, kv, situation.window_s(len(joined))))]
