"""NEO: asymmetric pipelining. Every request's KV is wholly on one side; the host's decodes hide behind the accelerator.

Per iteration: the accelerator's decodes first, the youngest moving to the host when blocks run out; back when there is
room; whole prompts to the accelerator if they fit, else to the host (core/hybrid.py). Then two candidates: host decodes
stand still, or two halves take turns (core/dealing.py); the one with more requests per second of accelerator time runs.

After the system's public code and its paper. Ours differs in one thing: a prompt longer than a step's budget is
chunked.
"""

from dataclasses import dataclass

from engines.core.cost import Predictor
from engines.core.dealing import Pipeline, accel_work
from engines.core.hybrid import TwoSided, two_sided
from engines.core.policy import Decision, Proposal, View
from engines.core.types import Mode, Tier

SMALL_BATCH = 128  # tokens below which no prompt is put off


@dataclass(frozen=True, slots=True)
class Neo(TwoSided):
    @property
    def name(self) -> str:
        return "neo"

    def decide(self, view: View) -> Decision:
        proposal = two_sided(view)
        if not proposal.host_decodes:
            return proposal.decision(Mode.GPU_ONLY)
        if view.predict is None:  # nothing to price with: the host's decodes are a half of their own
            return proposal.decision(Mode.ASYMMETRIC, *proposal.halves((), proposal.host_decodes))
        return _priced(proposal, view.predict)


def _priced(proposal: Proposal, predict: Predictor) -> Decision:
    pipeline = Pipeline.dealt(predict, accel_work(proposal.decodes, proposal.prefills), proposal.host_decodes)
    pipeline = _without_late_prompts(proposal, predict, pipeline)
    alone = len(proposal.decodes) + len(proposal.prefills)
    if alone and (alone + pipeline.host_rows) * pipeline.alone_s <= alone * pipeline.layer_s:
        return proposal.decision(Mode.GPU_ONLY, proposal.batch(()))
    first, second = (half.host for half in pipeline.halves)
    if not (alone or pipeline.host_rows):  # even one is too slow to hide, and there is nothing to hide it behind
        second = proposal.host_decodes
    return proposal.decision(Mode.ASYMMETRIC, *proposal.halves(first, second))


def _without_late_prompts(proposal: Proposal, predict: Predictor, pipeline: Pipeline) -> Pipeline:
    """Prompts bound for the host wait while there is enough to do without them and nobody's slack is lost."""
    while (
        pipeline.halves[0].rows > SMALL_BATCH
        and proposal.prefills
        and proposal.prefills[-1].tier is Tier.HOST
        and proposal.prefills[-1].tokens < pipeline.halves[0].rows - SMALL_BATCH
    ):
        without = pipeline.with_work(accel_work(proposal.decodes, proposal.prefills[:-1]))
        if min(without.slack(0), without.slack(1)) <= 0.0 or not proposal.put_off():
            break
        pipeline = without
    return pipeline
