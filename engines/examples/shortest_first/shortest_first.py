"""Shortest prompt first: what decodes leave of a step goes to the prompt with the least left to compute.

Short prompts overtake long ones, so their first tokens come sooner; a long one waits while shorter ones keep coming.
The core admits in order of arrival, so whoever fits comes in with one token, and the order is made among those inside.
Nobody is preempted, because a request comes in only when there are blocks for all that it may become.
"""

from dataclasses import dataclass

from engines.core.cost import Predictor
from engines.core.placement import Placement
from engines.core.policy import Decision, Prefill, View
from engines.core.request import Request
from engines.core.types import Capabilities, Mode, Tier


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """The prompt with the least left to compute goes first."""

    prompt_tokens: int = 2048  # at most so many of prompts beside decodes: fewer protect the time between tokens

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1:
            raise ValueError(f"prompt_tokens: must be 1 or more, not {self.prompt_tokens}")

    @property
    def name(self) -> str:
        return "shortest_first"

    @property
    def uses_host_kv(self) -> bool:
        return False

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        return Placement.all_on_accelerator(capabilities.layers)

    def decide(self, view: View) -> Decision:
        proposal = view.propose()
        proposal.decodes = [request for request in view.running if request.pending == 1][: proposal.tokens_left]
        left = proposal.tokens_left - len(proposal.decodes)
        if proposal.decodes:
            left = min(left, self.prompt_tokens)
        newcomers = self.newcomers(view, left)
        left -= len(newcomers)  # each comes in with one token
        prompts = [request for request in view.running if request.pending > 1]
        for request in sorted([*prompts, *newcomers], key=lambda request: request.pending):
            entry = int(request in newcomers)
            tokens = min(request.pending, entry + left)
            left -= tokens - entry
            if tokens:
                proposal.prefills.append(Prefill(request, tokens, Tier.ACCEL))
        return proposal.decision(Mode.GPU_ONLY)

    def newcomers(self, view: View, most: int) -> list[Request]:
        """From the head of the queue: who fits to their end beside what those inside have been promised."""
        free = view.free[Tier.ACCEL] - sum(missing_blocks(request, view) for request in view.running)
        found: list[Request] = []
        for request in view.waiting:
            free -= missing_blocks(request, view)
            if free < 0 or len(found) == most or len(view.running) + len(found) == view.limits.max_batch:
                break
            found.append(request)
        return found


def missing_blocks(request: Request, view: View) -> int:
    """The last token is never fed back, so it needs no place."""
    return -(-(request.target - 1) // view.page_tokens[Tier.ACCEL]) - len(request.blocks)
