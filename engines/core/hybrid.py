"""What every hybrid policy shares: requests whose KV is wholly on one side, the accelerator first."""

from engines.core.policy import Proposal, View
from engines.core.types import Tier

FILLED = 0.95  # of the accelerator's blocks: beyond that nobody comes back from the host
SIDES = (Tier.ACCEL, Tier.HOST)


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
