"""Which cohorts are in flight: how they take off, move on and land. What flying is: cohorts.py."""

from engines.core.cohorts import Cohort
from engines.core.draft import Draft
from engines.core.errors import IntegrityError, PolicyError
from engines.core.kv import KVManager
from engines.core.policy import CohortDecision
from engines.core.request import Phase, Request
from engines.core.types import CohortPlan, StepPlan, StepResult, Tier


class Airborne:
    def __init__(self, kv: KVManager) -> None:
        self.cohorts: list[Cohort] = []  # oldest first
        self._kv = kv
        self._last_cohort = 0

    def fly(self, decision: CohortDecision, draft: Draft) -> CohortPlan:
        """One that is parked somewhere, or a new one."""
        cohort = decision.flying
        if cohort is None:
            self._last_cohort += 1
            cohort = Cohort(self._last_cohort, decision.requests)
            self.cohorts.append(cohort)
            for request in cohort.requests:
                if request.phase is not Phase.RUNNING or request.tier is not Tier.HOST or request.pending != 1:
                    raise PolicyError(f"{request!r} cannot fly: cohorts decode requests that run on the host")
                if request.in_flight:
                    raise PolicyError(f"{request!r} flies already")
                if request.computed == request.capacity:
                    draft.grow(request, request.known)
                request.in_flight = True
        return cohort.plan(decision.patience_us)

    def land(self, plan: StepPlan, result: StepResult, sampling: list[Request]) -> tuple[list[int], list[Request]]:
        """Cohorts move on; those at the end add their requests to the rows that sample. Returns the tokens of them all,
        and who was aborted in flight: its pages are free only now, and so is its slot.
        """
        rows = len(sampling)
        tokens = list(result.tokens[:rows])
        aborted = []
        flying = {cohort.cohort: cohort for cohort in self.cohorts}
        for planned in plan.cohorts:
            flying[planned.cohort].layer = max(planned.parked_layer, 0)
        for answer in result.answers:
            flying[answer.guard.cohort].layer += answer.ready
        for number in result.finished_cohorts:
            cohort = flying[number]
            self.cohorts.remove(cohort)
            landed = result.tokens[rows : rows + len(cohort.requests)]
            rows += len(cohort.requests)
            if len(landed) != len(cohort.requests):
                raise IntegrityError(f"cohort {number} landed {len(cohort.requests)} rows and {len(landed)} tokens")
            for request, token in zip(cohort.requests, landed, strict=True):
                request.in_flight = False
                if request.phase is Phase.ENDED:
                    self._kv.settle(request.request_id)
                    aborted.append(request)
                else:
                    sampling.append(request)
                    tokens.append(token)
        tokens.extend(result.tokens[rows:])  # none, or commit says so
        return tokens, aborted

    @property
    def aborted(self) -> list[Request]:
        """Who has ended, and flies on."""
        return [request for cohort in self.cohorts for request in cohort.requests if request.phase is Phase.ENDED]
