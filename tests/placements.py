"""Placements of every kind, and an engine on real tensors that is given one: no planner has a say."""

from dataclasses import dataclass
from pathlib import Path

from engines.apex.attention import Pool
from engines.core.clock import MonotonicClock
from engines.core.cost import CostTable, Predictor
from engines.core.placement import (
    FROM_DISK,
    ON_HOST,
    RESIDENT,
    STREAMED,
    LayerPlacement,
    Placement,
    Split,
)
from engines.core.placing import placed_decision
from engines.core.policy import Decision, View
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, TierCapacity
from engines.core.units import Tier, Unit
from harness.adapter import CoreAdapter
from harness.real_placed import PlacedModel, placed_executor

HALF = Split(0.5, 0.0, 0.0, 0.5)
QUARTERS = Split(0.25, 0.25, 0.25, 0.25)
UNEVEN = Split(0.1, 0.33, 0.0, 0.57)
DISK = 2**30


def whole(layers: int, layer: LayerPlacement, **options: object) -> Placement:
    return Placement((layer,) * layers, **options)  # type: ignore[arg-type]


def placements(layers: int) -> dict[str, Placement]:
    """By what is unusual about them."""
    plain = LayerPlacement()
    streamed = LayerPlacement.of(STREAMED)
    on_host = LayerPlacement.of(ON_HOST, Tier.HOST, Unit.CPU)
    by_operator = LayerPlacement(STREAMED, ON_HOST, RESIDENT, ON_HOST)
    mixed = (on_host, streamed, LayerPlacement.of(FROM_DISK), by_operator)
    return {
        "all streamed": whole(layers, streamed),
        "streamed, one buffer, no overlap": whole(layers, streamed, buffers=1, overlapped=False),
        "all on the host": whole(layers, on_host, overlapped=False),
        "first layers on the host": Placement((on_host,) * (layers // 2) + (plain,) * (layers - layers // 2)),
        "last layers on the host": Placement((plain,) * (layers // 2) + (on_host,) * (layers - layers // 2)),
        "by operator": whole(layers, by_operator),
        "by operator, the other way": whole(layers, LayerPlacement(ON_HOST, RESIDENT, ON_HOST, STREAMED)),
        "only the FFN on the host": whole(layers, LayerPlacement(up=ON_HOST, down=ON_HOST)),
        "by column": whole(layers, LayerPlacement.of(HALF)),
        "by column, zero copy": whole(layers, LayerPlacement.of(UNEVEN), zero_copy=True),
        "by column, all four kinds": whole(layers, LayerPlacement.of(QUARTERS)),
        "from disk": whole(layers, LayerPlacement.of(FROM_DISK)),
        "KV on the host": whole(layers, LayerPlacement(kv=Tier.HOST, prompts=Unit.CPU)),
        "KV on the host, prompts here": whole(layers, LayerPlacement(kv=Tier.HOST)),
        "KV on disk": whole(layers, LayerPlacement(kv=Tier.DISK)),
        "KV on disk, prompts on the host": whole(layers, LayerPlacement(kv=Tier.DISK, prompts=Unit.CPU)),
        "KV by layer": Placement(
            tuple(LayerPlacement(kv=tier) for tier in (Tier.HOST, Tier.ACCEL, Tier.DISK, Tier.ACCEL))[:layers]
        ),
        "embedding on the host": whole(layers, plain, embedding=Tier.HOST),
        "everything at once": Placement(
            tuple(mixed[index % 4] for index in range(layers)), zero_copy=True, embedding=Tier.HOST
        ),
        "may be changed": whole(layers, LayerPlacement.of(UNEVEN), replaceable=True),
    }


@dataclass(frozen=True, slots=True)
class Placed:
    """A policy that does as it is told."""

    placement: Placement
    batches: int = 1  # lockstep: rows are dealt to so many

    name = "placed"
    uses_host_kv = False
    places_weights = True

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        return self.placement

    def decide(self, view: View) -> Decision:
        return placed_decision(view)


def open_placed(
    folder: Path,
    policy: Placed,
    limits: Limits,
    kv_tokens: int,
    spare: Path,
    *,
    costs: CostTable | None = None,
    threads: int = 1,
) -> CoreAdapter:
    """`spare`: a folder for the disk tier."""
    placement = policy.placement
    placed = PlacedModel(str(folder), "float32", "cpu", 0, 700, 0, placement, (str(spare), DISK))
    layers = len(placement.layers)
    capabilities = Capabilities(layers, TierCapacity(kv_tokens // 16, 16), TierCapacity(0, 256), host_threads=threads)
    core = EngineCore(policy, capabilities, limits, costs)
    pool = Pool(threads) if placement.computes_on_host else None
    clock = MonotonicClock()
    executor, resolved = placed_executor(placed, capabilities, placement, limits, clock, costs, (), pool=pool)
    return CoreAdapter(core, executor, resolved)
