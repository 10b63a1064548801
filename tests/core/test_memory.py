"""What a placement takes on each tier, against a count by hand and against the tensors that are made of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from engines.core.memory import Room, footprint
from engines.core.placement import FROM_DISK, ON_HOST, STREAMED, LayerPlacement, Placement, PlacementError
from engines.core.types import Limits
from engines.core.units import Tier, Unit
from harness.placed_sizing import model_sizes
from harness.real_placed import PlacedModel
from tests.model_folders import make_folder, small_config
from tests.placements import DISK, Placed, open_placed, placements, whole
from tests.sizes import SIZES

LAYER = 2 * (300 + 100 + 400 + 200)
ROOM = Room(SIZES, 10_000, 20_000, 0, 700, page_tokens=10, most_tokens=1000, max_batch=4, max_batch_tokens=64)


def test_resident_layers_and_buffers_by_hand() -> None:
    layers = (LayerPlacement(),) + (LayerPlacement.of(STREAMED),) * 3
    found = footprint(Placement(layers), SIZES)
    assert found.accel == 500 + 1000 + LAYER + 2 * LAYER
    assert found.host == 3 * LAYER
    assert footprint(Placement(layers, buffers=1), SIZES).accel == 500 + 1000 + LAYER + LAYER


def test_what_is_on_disk_passes_through_the_host() -> None:
    found = footprint(whole(4, LayerPlacement.of(FROM_DISK)), SIZES)
    assert (found.accel, found.host, found.disk) == (1500 + 2 * LAYER, 2 * LAYER, 4 * LAYER)


def test_an_embedding_on_the_host_is_there_once() -> None:
    placement = whole(4, LayerPlacement.of(ON_HOST), embedding=Tier.HOST)
    assert footprint(placement, SIZES) == footprint(replace(placement), SIZES)
    assert (footprint(placement, SIZES).accel, footprint(placement, SIZES).host) == (500, 1000 + 4 * LAYER)
    tied = replace(SIZES, tied_head=True)
    assert footprint(placement, tied).accel == 500 + 1000, "the head needs it on the accelerator as well"


def test_kv_is_what_is_left_of_the_scarcer_tier() -> None:
    halves = (LayerPlacement(),) * 2 + (LayerPlacement.of(ON_HOST, Tier.HOST, Unit.CPU),) * 2
    accel_left, host_left = 10_000 - 700 - 1500 - 2 * LAYER, 20_000 - 2 * LAYER
    assert ROOM.kv_blocks(Placement(halves)) == accel_left // (2 * 400)
    assert replace(ROOM, accel_bytes=60_000).kv_blocks(Placement(halves)) == host_left // (2 * 400)
    with pytest.raises(PlacementError, match=r"do not fit the accelerator: .* short of accel_memory"):
        ROOM.kv_blocks(whole(8, LayerPlacement()))


def test_a_shortage_names_its_tier_and_by_how_much() -> None:
    with pytest.raises(PlacementError, match=r"do not fit the host: .* are short of host_memory"):
        replace(ROOM, host_bytes=100).kv_blocks(whole(4, LayerPlacement.of(ON_HOST)))
    with pytest.raises(PlacementError, match=r"do not fit the disk: 0.0 MiB are short of disk 0.0 MiB"):
        replace(ROOM, accel_bytes=60_000).kv_blocks(whole(4, LayerPlacement(kv=Tier.DISK)))


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("kind", placements(4))
def test_the_budget_is_what_is_allocated(kind: str, family: str, model_root: Path, tmp_path: Path) -> None:
    """Byte for byte: weights with their buffers, by tier."""
    config = small_config(family=family)  # type: ignore[arg-type]
    folder = make_folder(model_root, family=family)  # type: ignore[arg-type]
    placement, sizes = placements(4)[kind], model_sizes(config, 4)
    placed = PlacedModel(str(folder), "float32", "cpu", 0, 64, 0, placement, (str(tmp_path), DISK))
    told, held = footprint(placement, sizes), placed.weights.nbytes
    on_host = placement.embedding is Tier.HOST
    assert held[Tier.ACCEL] == told.accel - sizes.fixed_bytes - (0 if on_host else sizes.embedding_bytes)
    assert held[Tier.HOST] == told.host - (sizes.embedding_bytes if on_host else 0)
    assert held[Tier.DISK] == told.disk
    if placed.disk is not None:
        placed.disk.close()


@pytest.mark.parametrize("compressed", [False, True])
def test_kv_as_budgeted_is_what_is_allocated(compressed: bool, model_root: Path, tmp_path: Path) -> None:
    folder, sizes = make_folder(model_root), model_sizes(small_config(), 4)
    tiers = (Tier.HOST, Tier.ACCEL, Tier.ACCEL, Tier.HOST)
    placement = Placement(tuple(LayerPlacement(kv=tier) for tier in tiers), compressed_kv=compressed)
    adapter = open_placed(folder, Placed(placement), Limits(4, 64), 160, tmp_path)
    kv = adapter._executor._kv  # type: ignore[attr-defined]
    each = 160 * 2 * sizes.kv_bytes(packed=compressed)
    assert kv.nbytes == {Tier.ACCEL: each, Tier.HOST: each, Tier.DISK: 0}
    adapter.close()
