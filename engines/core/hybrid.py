"""What every hybrid policy shares: requests whose KV is wholly on one side, the accelerator first."""

from collections.abc import Sequence

from engines.core.cost import Predictor
from engines.core.placement import Placement
from engines.core.policy import Proposal, View
from engines.core.request import Request
from engines.core.types import Capabilities, Mode, Tier

FILLED = 0.95  # of the accelerator's blocks: beyond that nobody comes back from the host
SIDES = (Tier.ACCEL, Tier.HOST)


class TwoSided:
    """What policies of this kind answer alike: KV on the host as well, every weight on the accelerator."""

    __slots__ = ()

    @property
    def uses_host_kv(self) -> bool:
        return True

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        return Placement.all_on_accelerator(capabilities.layers)

    def steady(self, running: Sequence[Request]) -> Mode | None:
        """With nobody on the host there is nothing to weigh; else lengths decide, and they change with every step.

        The youngest are looked at first: it is they who have to go there.
        """
        host = Tier.HOST
        return None if any(request.tier is host for request in reversed(running)) else Mode.GPU_ONLY


def two_sided(view: View) -> Proposal:
    """Running requests first, the youngest moving to the host when the accelerator's blocks run out; back, never both
    in one step, while there is ample room; then whole prompts, to the accelerator if they fit, else to the host."""
    proposal = view.propose()
    proposal.continue_running(offloads=True)
    if proposal.preemptions:
        return proposal
    if not proposal.moves:
        proposal.bring_back(FILLED)
    proposal.admit(lambda _: SIDES)
    return proposal
