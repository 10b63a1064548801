"""FlexGen's engine: fractions by LP, and blocks of requests that go through the layers in lockstep, zig-zag: a layer's
weights serve every GPU batch of the block before the next layer's.

Offline: a block is filled from whoever waits, prefilled, and decoded to its end before the next one begins. Hidden
state stays on the accelerator. Shares of weights are columns of every matrix; shares of KV are whole layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engines.core.cost import PlacedCosts
from engines.core.memory import Room, footprint
from engines.core.placement import LayerPlacement, Placement, PlacementError, Split
from engines.core.placing import fits, mode_of
from engines.core.policy import BatchDecision, Decision, Prefill, View
from engines.core.request import Request
from engines.core.units import Tier
from engines.lp_balanced.believed import constants_of, planned_model
from engines.lp_balanced.flexgen import Fractions, Layer
from engines.lp_balanced.planner import ALPHA, Memory, NoPlanError, Plan, gpu_batches, plan

STEP_DOWN = 0.02  # of the weights: what leaves the accelerator where whole layers and pages need more than fractions


@dataclass(frozen=True, slots=True)
class Expected:
    """What a plan is made for."""

    prompt_tokens: int
    output_tokens: int
    gpu_batch: int | None
    batches: int | None
    compressed: bool


def best_plan(room: Room, costs: PlacedCosts, expected: Expected) -> Plan:
    """Over all shapes of a block; what a cost table believes of one GPU batch is not what it believes of another."""
    best, problem = None, "no block shape was tried"
    for size in [expected.gpu_batch] if expected.gpu_batch else gpu_batches():
        if size > room.max_batch:
            break
        try:
            found = _plan_of(room, costs, expected, size)
        except NoPlanError as error:
            problem = str(error)
            break  # larger batches need more of every memory
        if best is None or found.tokens_per_s > best.tokens_per_s:
            best = found
    if best is None:
        raise PlacementError(problem)
    return best


def _plan_of(room: Room, costs: PlacedCosts, expected: Expected, gpu_batch: int) -> Plan:
    s, n = expected.prompt_tokens, expected.output_tokens
    model = planned_model(room.sizes, compressed=expected.compressed)
    layer = Layer(model, constants_of(costs, room.sizes, s, n, gpu_batch), s, n, gpu_batch, 1)
    most = max(1, room.max_batch // gpu_batch)
    return plan(layer, _memory(room), gpu_batch, expected.batches, most)


def _memory(room: Room) -> Memory:
    """In 16 bit, without what is always there; the equations fill only a share of what they are told."""
    sizes = room.sizes
    always = footprint(Placement((LayerPlacement.of(Split(0.0, 0.0, 0.0, 1.0)),) * sizes.layers), sizes).accel
    left = (room.accel_bytes - always - room.workspace_bytes, room.host_bytes, room.disk_bytes)
    gpu, cpu, disk = (max(0, int(size * 2 / sizes.bytes_per_parameter / ALPHA)) for size in left)
    return Memory(gpu, cpu, disk)


def placement_of(found: Plan, room: Room, expected: Expected) -> Placement:
    """The plan's fractions as columns and layers. Layers are whole and pages are: until it fits, a little less."""
    pages = -(-(expected.prompt_tokens + expected.output_tokens) // room.page_tokens)
    tokens = min(found.layer.block * pages * room.page_tokens, room.most_tokens)
    fractions, block = found.fractions, (found.layer.gpu_batch, found.layer.batches)
    while True:
        placement = _placement(fractions, room.sizes.layers, expected.compressed, block)
        if fits(room, placement, tokens) or (fractions.wg == 0.0 and fractions.cg == 0.0):
            break
        fractions = _less(fractions, 1 / room.sizes.layers)
    room.kv_blocks(placement)  # says what is short, if it still is
    return placement


def _less(fractions: Fractions, layer: float) -> Fractions:
    """Weights leave the accelerator first; when none are left, a layer's KV does."""
    if fractions.wg > 0.0:
        moved = min(STEP_DOWN, fractions.wg)
        return replace(fractions, wg=fractions.wg - moved, wc=fractions.wc + moved)
    moved = min(layer, fractions.cg)
    return replace(fractions, cg=fractions.cg - moved, cc=fractions.cc + moved)


def _placement(fractions: Fractions, layers: int, compressed: bool, block: tuple[int, int]) -> Placement:
    split = _split(fractions)
    here = int(fractions.cg * layers + 1e-9)
    on_disk = min(round(fractions.cn * layers), layers - here)
    tiers = [Tier.DISK] * on_disk + [Tier.HOST] * (layers - here - on_disk) + [Tier.ACCEL] * here
    placed = tuple(LayerPlacement.of(split, tier) for tier in tiers)
    return Placement(placed, compressed_weights=compressed, compressed_kv=compressed, block=block)


def _split(fractions: Fractions) -> Split:
    """Without the crumbs that a solver leaves."""
    wg, wc, wn = (0.0 if share < 1e-3 else share for share in (fractions.wg, fractions.wc, fractions.wn))
    whole = wg + wc + wn
    return Split(wg / whole, wc / whole, wn / whole)


# --- a step ----------------------------------------------------------------------------------------------------------


def lockstep(view: View, placement: Placement) -> Decision:
    """While a block is being filled its prompts are computed and its decodes wait; then all decode together."""
    gpu_batch, batches = placement.block
    block = gpu_batch * batches
    proposal = view.propose()
    proposal.continue_running()
    opened = all(_answered(request) <= 1 for request in view.running)
    if opened and not proposal.preemptions:
        proposal.admit_waiting(Tier.ACCEL, most=block)
    prefilling = bool(proposal.prefills)
    decodes = [] if prefilling and opened else proposal.decodes
    return proposal.decision(mode_of(view), *_dealt(decodes, proposal.prefills, gpu_batch))


def _answered(request: Request) -> int:
    """Tokens that it has got."""
    return request.known - request.prompt_tokens


def _dealt(decodes: Sequence[Request], prefills: Sequence[Prefill], size: int) -> list[BatchDecision]:
    """In GPU batches."""
    batches = [BatchDecision(decodes=decodes[first : first + size]) for first in range(0, len(decodes), size)]
    batches += [BatchDecision(prefills=prefills[first : first + size]) for first in range(0, len(prefills), size)]
    return batches
