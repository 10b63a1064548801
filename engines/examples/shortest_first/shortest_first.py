"""Shortest prompt first: what decodes leave of a step goes to the prompt with the least left to compute.

Short prompts overtake long ones, so their first tokens come sooner; a long prompt waits as long as shorter ones come.
The core admits in order of arrival, so everybody who fits is let in with one token and the order is made among those.
Nobody is ever preempted, because a request is let in only when there are blocks for all that it may become.
"""

from dataclasses import dataclass

from engines.core.cost import Predictor
from engines.core.policy import Decision, Prefill, View
from engines.core.request import Request
from engines.core.types import Capabilities, Mode, Placement, Tier


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """The prompt with the least left to compute goes first."""

    prompt_tokens: int = 2048  # of prompts in a step beside decodes: fewer protect the time between tokens

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
        left = min(left, self.prompt_tokens) if proposal.decodes else left
        admitted = self.admitted(view, left)
        left -= len(admitted)
        prompts = [request for request in view.running if request.pending > 1]
        for request in sorted([*prompts, *admitted], key=lambda request: request.pending):
            entry = 1 if request in admitted else 0
            more = min(request.pending - entry, left)
            if entry + more:
                proposal.prefills.append(Prefill(request, entry + more, Tier.ACCEL))
            left -= more
        return proposal.decision(Mode.GPU_ONLY)

    def admitted(self, view: View, left: int) -> list[Request]:
        """From the head of the queue, who fits to their end beside what the running ones have been promised."""
        free = view.free[Tier.ACCEL] - sum(missing_blocks(request, view) for request in view.running)
        found: list[Request] = []
        for request in view.waiting:
            free -= missing_blocks(request, view)
            if free < 0 or len(found) == left or len(view.running) + len(found) == view.limits.max_batch:
                break
            found.append(request)
        return found


def missing_blocks(request: Request, view: View) -> int:
    """The last token is never fed back, so it needs no place."""
    return -(-(request.target - 1) // view.page_tokens[Tier.ACCEL]) - len(request.blocks)
