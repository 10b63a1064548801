"""Cells of engines that place weights: sized by what they leave, refused in one line, and not taken for quick ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.core.units import Tier
from harness.build import check
from harness.config import load_experiment
from harness.errors import ConfigError
from harness.estimate import serving_s
from harness.placed_sizing import placed_room
from harness.plan import CellSpec, expand
from harness.sizing import size
from workloads import build


def cells(*sets: str, backend: str = "sim") -> dict[str, CellSpec]:
    """By engine, on the long workload."""
    experiment = load_experiment("emulated_offload", sets)
    return {cell.engine.name: cell for cell in expand(experiment, backend) if cell.workload.name == "long"}  # type: ignore[arg-type]


def test_kv_is_what_the_weights_leave() -> None:
    for name, cell in cells().items():
        sizing = size(cell)
        placed = placed_room(cell)
        assert placed is not None, name
        room, placement = placed
        assert sizing.placement == placement
        assert sizing.accel_kv_tokens == room.kv_blocks(placement) * 16
        held = sizing.weight_bytes + sizing.workspace_bytes + sizing.kv_bytes_per_token * sizing.accel_kv_tokens
        assert held <= room.budget(Tier.ACCEL)
        assert sizing.beside_bytes <= room.budget(Tier.HOST)


def test_others_are_sized_as_ever() -> None:
    [cell] = cells("engines=[{kind: static_partition, host_share: 0.5}]", "budget.accel_memory=auto").values()
    assert placed_room(cell) is None
    assert size(cell).placement is None


def test_a_mistake_names_its_engine() -> None:
    [cell] = cells("engines=[{kind: static_partition, name: mine, accel_layers: 32}]").values()
    with pytest.raises(ConfigError, match=r"engine mine: .* do not fit the accelerator"):
        size(cell)


def test_estimates_know_what_is_slow() -> None:
    found = {}
    for name, cell in cells().items():
        requests = build({"name": cell.workload.name, **cell.workload.options}, 0).requests
        found[name] = serving_s(cell, requests) or 0.0
    assert found["static_partition"] > found["weight_streaming"] > found["flexgen"] > found["twinpilots"] > 10.0


def test_a_disk_that_will_not_do_is_found_before_it_is_needed(tmp_path: Path) -> None:
    here = ("engines=[{kind: weight_streaming}]", "budget.host_memory=30MiB", "budget.disk=1GiB")
    [fine] = cells(*here, f"budget.disk_folder={tmp_path}", backend="cpu").values()
    assert check(fine) == []
    assert size(fine).disk_bytes > 20 * 2**20
    [missing] = cells(*here, f"budget.disk_folder={tmp_path / 'none'}", backend="cpu").values()
    assert check(missing) == [f"budget.disk_folder: {tmp_path / 'none'} is no folder; name one that exists"]
    [small] = cells(here[0], here[1], "budget.disk=1MiB", backend="cpu").values()
    assert "do not fit the disk" in check(small)[0]
