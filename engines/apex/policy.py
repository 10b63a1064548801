"""APEX: asynchronous overlap, chosen by prediction. A reconstruction: of the paper only the abstract is public to us.

Confirmed: execution times are profiled and predicted, batches are not split, the overlap of CPU and GPU is maximised,
and short prompts with long answers are the target. Secondary: the names of the modes and equation 6. Inferred: how
asynchronous overlap works in detail (core/cohorts.py). Ours: full overlap, and the selector `predicted`.

    gpu_only       host decodes stand still
    asymmetric     NEO's two halves (core/dealing.py)
    async_overlap  one batch; host decodes fly in cohorts and come aboard when they are ready; the GPU never waits
    full_overlap   the same, and besides some host decodes keep up with the batch layer by layer, waited for a little
"""

from dataclasses import dataclass
from typing import Literal

from engines.apex.modes import Option, Situation
from engines.core.hybrid import TwoSided, two_sided
from engines.core.policy import Decision, View
from engines.core.types import Mode

LASTING_STEPS = 160  # how long a situation is taken to last; nobody knows how long answers will be
Forced = Literal["auto", "gpu_only", "asymmetric", "async_overlap", "full_overlap"]


@dataclass(frozen=True, slots=True)
class Apex(TwoSided):
    """`cohorts`: how many may be in flight, 0 for one per layer. `hysteresis`: how much better than the mode of the
    last step another one has to be."""

    selector: Literal["predicted", "paper"] = "predicted"
    mode: Forced = "auto"
    cohorts: int = 0
    hysteresis: float = 0.05

    def __post_init__(self) -> None:
        if self.cohorts < 0:
            raise ValueError(f"cohorts: {self.cohorts} cannot fly; use 0 for one per layer, or more")
        if not 0.0 <= self.hysteresis < 1.0:
            raise ValueError(f"hysteresis: {self.hysteresis} is no share; use 0 to 0.99")

    @property
    def name(self) -> str:
        return "apex"

    def decide(self, view: View) -> Decision:
        proposal = two_sided(view)
        if not proposal.host_decodes and not view.cohorts:
            return proposal.decision(Mode.GPU_ONLY)
        situation = Situation(proposal, view, self.cohorts or view.capabilities.layers)
        return self._chosen(situation, view).decision()

    def _chosen(self, situation: Situation, view: View) -> Option:
        """Cohorts in flight have to land before any mode without them."""
        if self.mode != "auto":
            return situation.option(Mode(self.mode))
        if view.predict is None:
            return situation.option(Mode.FULL_OVERLAP)
        if self.selector == "paper":
            return situation.option(situation.by_the_paper())
        options = situation.options()
        best = max(options, key=lambda option: option.rate)
        for option in options:
            if option.mode is view.last_mode and best.rate <= option.rate * (1.0 + self._threshold(view, option, best)):
                return option
        return best

    def _threshold(self, view: View, option: Option, best: Option) -> float:
        """How much better another mode has to be. Where cohorts take off or land for it, host decodes yield half of
        their tokens for as many steps as there are layers; that has to come in again while the situation lasts.
        """
        flies = view.cohorts or any(cohort.patience_us == 0 for each in (option, best) for cohort in each.cohorts)
        return self.hysteresis + (view.capabilities.layers / 2 / LASTING_STEPS if flies else 0.0)
