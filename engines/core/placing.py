"""What policies that place weights share: how a step of theirs is run, and what is left where for KV."""

from collections.abc import Sequence

from engines.core.memory import Room
from engines.core.placement import LayerPlacement, Placement, PlacementError
from engines.core.policy import Decision, View
from engines.core.types import Mode, Tier


def placed_decision(view: View, whole_prompt: bool = True, most: int | None = None) -> Decision:
    """Continuous batching in one batch: every request has a part of its KV in every layer's place."""
    proposal = view.propose()
    proposal.continue_running()
    if not proposal.preemptions:
        proposal.admit_waiting(Tier.ACCEL, whole_prompt, most)
    return proposal.decision(mode_of(view))


def mode_of(view: View) -> Mode:
    """A model that fits after all needs no other mode than anybody else's."""
    return Mode.GPU_ONLY if view.placement is None or view.placement.all_resident else Mode.PLACED


def fits(room: Room, placement: Placement, kv_tokens: int = 1) -> bool:
    """With KV for so many tokens."""
    try:
        return room.kv_blocks(placement) * room.page_tokens >= min(kv_tokens, room.most_tokens)
    except PlacementError:
        return False


def most_that_fit(room: Room, candidates: Sequence[Placement], kv_tokens: int) -> Placement:
    """Of placements that need ever less of the accelerator, the first that fits; PlacementError says what the last
    lacks.
    """
    for placement in candidates:
        if fits(room, placement, kv_tokens):
            return placement
    last = candidates[-1]
    blocks = room.kv_blocks(last)  # says why where not even one page fits
    raise PlacementError(
        f"KV for {kv_tokens} tokens was asked for, {blocks * room.page_tokens} fit beside the weights; "
        f"lower context or slots, or raise accel_memory or host_memory"
    )


def leading(layers: int, first: int, one: LayerPlacement, rest: LayerPlacement) -> tuple[LayerPlacement, ...]:
    """The first `first` layers of one kind, the others of another."""
    return (one,) * first + (rest,) * (layers - first)
