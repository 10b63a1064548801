"""Static partition of requests: a fixed share of them keeps its KV and its attention on the host, decided on arrival.

The simplest hybrid. The accelerator computes everything else; host and accelerator take turns in every layer and
nothing overlaps, as in engines that run one part after the other. A request waits until its own side has room.
"""

from dataclasses import dataclass

from engines.core.hybrid import TwoSided
from engines.core.policy import Decision, View
from engines.core.request import Request
from engines.core.types import Mode, Tier


@dataclass(frozen=True, slots=True)
class StaticPartition(TwoSided):
    host_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.host_share <= 1.0:
            raise ValueError(f"host_share: {self.host_share} is no share; use 0 to 1")

    @property
    def name(self) -> str:
        return "static_partition"

    def decide(self, view: View) -> Decision:
        proposal = view.propose()
        proposal.continue_running()
        if not proposal.preemptions:
            proposal.admit(lambda request: (self._side(request, view.capabilities.host.tokens),))
        return proposal.decision(Mode.SEQUENTIAL if proposal.host_decodes else Mode.GPU_ONLY)

    def _side(self, request: Request, host_tokens: int) -> Tier:
        """The host for every so manieth request, evenly spread over arrivals, unless it could never hold that one."""
        before, after = (int(count * self.host_share) for count in (request.sequence, request.sequence + 1))
        return Tier.HOST if after > before and request.target <= host_tokens else Tier.ACCEL
