"""What policies that place weights share: how a step of theirs is run, and what is left where for KV."""

from collections.abc import Sequence
from dataclasses import replace

from engines.core.cost import Predictor
from engines.core.memory import Room
from engines.core.placement import LayerPlacement, Part, Placement, PlacementError, Split
from engines.core.policy import Decision, Proposal, View
from engines.core.types import Capabilities, Mode, Tier


class Placing:
    """What policies of this kind answer alike: KV by layer is the placement's, and no tier of its own."""

    __slots__ = ()

    @property
    def uses_host_kv(self) -> bool:
        return False

    @property
    def places_weights(self) -> bool:
        return True

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        return Placement.all_on_accelerator(capabilities.layers)


def continued(view: View, most: int | None = None) -> Proposal:
    """Continuous batching in one batch: every request has a part of its KV in every layer's place."""
    proposal = view.propose()
    proposal.continue_running()
    if not proposal.preemptions:
        proposal.admit_waiting(Tier.ACCEL, most=most)
    return proposal


def placed_decision(view: View, most: int | None = None) -> Decision:
    return continued(view, most).decision(mode_of(view))


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


def refuse_negative(accel_layers: int | str) -> None:
    if isinstance(accel_layers, int) and accel_layers < 0:
        raise ValueError(f"accel_layers: {accel_layers}; use auto, or 0 to the model's number of layers")


def layer_counts(accel_layers: int | str, layers: int) -> Sequence[int]:
    """How many layers to try on the accelerator: the number asked for, or from all of them down to none."""
    if not isinstance(accel_layers, int):
        return range(layers, -1, -1)
    if accel_layers > layers:
        raise PlacementError(f"accel_layers: {accel_layers}, the model has {layers}; use 0 to {layers}")
    return (accel_layers,)


def dealt(placement: Placement, host_shares: Sequence[float]) -> Placement:
    """The host computes so much of each matrix that is not resident, layer by layer, and the rest is streamed."""
    shares = iter(host_shares)
    layers = []
    for layer in placement.layers:
        host = [next(shares) for _ in Part]
        splits = [
            split if split.is_resident else Split(0.0, 1.0 - share, 0.0, share)
            for split, share in zip(layer.splits, host, strict=True)
        ]
        qkv, output, up, down = splits
        layers.append(LayerPlacement(qkv, output, up, down, layer.kv, layer.prompts))
    return replace(placement, layers=tuple(layers))
