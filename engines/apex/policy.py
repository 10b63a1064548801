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

from engines.apex.modes import Modes
from engines.apex.paper import chosen_by_the_paper
from engines.apex.situation import Situation
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
        situation = Situation(proposal, view)
        modes = Modes(situation, self.cohorts or view.capabilities.layers)
        if self.mode != "auto":
            return modes.decision(Mode(self.mode))
        if view.predict is None:
            return modes.decision(Mode.FULL_OVERLAP)
        if self.selector == "paper":
            return modes.decision(chosen_by_the_paper(situation))
        return modes.toward(self._predicted(situation))

    def _predicted(self, situation: Situation) -> Mode:
        if not situation.work.tokens:
            return Mode.FULL_OVERLAP if situation.view.cohorts else Mode.ASYMMETRIC
        last, threshold = situation.view.last_mode, 1.0 + self._threshold(situation)
        overlapping = situation.overlapping(situation.joined)
        rates = {Mode.FULL_OVERLAP: overlapping, Mode.GPU_ONLY: situation.alone()}
        if situation.host:
            hopeless = last is Mode.FULL_OVERLAP and situation.asymmetric_at_most() <= overlapping * threshold
            rates[Mode.ASYMMETRIC] = 0.0 if hopeless else situation.asymmetric()
        best = max(rates, key=rates.__getitem__)
        return last if last in rates and rates[best] <= rates[last] * threshold else best

    def _threshold(self, situation: Situation) -> float:
        """How much better another mode has to be. Where cohorts take off or land for it, host decodes yield half of
        their tokens for as many steps as there are layers; that has to come in again while the situation lasts.
        """
        flies = situation.flying or situation.joined < len(situation.host)
        return self.hysteresis + (situation.view.capabilities.layers / 2 / LASTING_STEPS if flies else 0.0)
