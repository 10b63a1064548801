"""Bytes per tier: weights and buffers, and KV in use by blocks, which may lie on several tiers at once."""

from pathlib import Path

import pytest

from engines.core.placement import STREAMED, LayerPlacement, Placement
from engines.core.types import Capabilities, Tier, TierCapacity
from harness.collectors.steps import StepObservation, step_columns
from harness.memory_use import memory_use, peaks
from harness.metric_catalogue import MEMORY
from results.memory_use import MemoryUse
from results.store import StepWriter
from tests.sizes import SIZES

LAYER = 2000
USE = MemoryUse({"accel": 1000, "host": 50, "disk": 7}, {"accel": 10, "host": 3, "disk": 1}, 100)


def steps(cell_dir: Path, *used: tuple[int, int]) -> Path:
    with StepWriter(cell_dir) as writer:
        writer.append_columns(
            step_columns(
                StepObservation(at, at, at + 1.0, accel_blocks_used=accel, host_blocks_used=host)
                for at, (accel, host) in enumerate(used)
            )
        )
    return cell_dir


def test_a_block_lies_where_its_layers_are() -> None:
    layers = tuple(LayerPlacement.of(STREAMED, kv) for kv in (Tier.ACCEL, Tier.HOST, Tier.HOST, Tier.DISK))
    caps = Capabilities(4, TierCapacity(8, 16), TierCapacity(0, 256, 999))
    assert memory_use(SIZES, Placement(layers), caps) == MemoryUse(
        static={"accel": 1500 + 2 * LAYER, "host": 4 * LAYER, "disk": 0},
        block={"accel": 16 * 40, "host": 2 * 16 * 40, "disk": 16 * 40},
        host_block=0,  # there is no pool there
    )


def test_requests_on_the_host_have_blocks_of_their_own() -> None:
    caps = Capabilities(4, TierCapacity(8, 16, 2560), TierCapacity(3, 256, 40_960))
    found = memory_use(SIZES, Placement.all_on_accelerator(4), caps)
    assert found.static == {"accel": 1500 + 4 * LAYER, "host": 0, "disk": 0}
    assert found.block == {"accel": 2560, "host": 0, "disk": 0}
    assert found.host_block == 40_960


def test_the_peak_of_a_tier_is_that_of_both_pools_in_one_step(tmp_path: Path) -> None:
    cell_dir = steps(tmp_path, (9, 0), (5, 2), (0, 1))
    found = peaks({"memory": USE.to_json()}, cell_dir)
    assert found.metrics == {"peak_accel_bytes": 1090.0, "peak_host_bytes": 50 + 15 + 200, "peak_disk_bytes": 16.0}
    assert set(found.metrics) == {metric.key for metric in MEMORY}
    assert not found.unavailable


def test_without_a_step_there_are_weights(tmp_path: Path) -> None:
    with StepWriter(tmp_path):
        pass
    assert peaks({"memory": USE.to_json()}, tmp_path).metrics["peak_accel_bytes"] == 1000


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"memory": "8 GiB"},
        {"memory": {"static": {"accel_bytes": 1}}},
        {"memory": USE.to_json() | {"host_kv_block_bytes": None}},
        {"memory": USE.to_json() | {"kv_block": {"accel_bytes": 1, "host_bytes": 2}}},
    ],
)
def test_an_engine_that_does_not_say_has_none(said: dict[str, object], tmp_path: Path) -> None:
    found = peaks(said, tmp_path)
    assert found.metrics == {}
    assert set(found.unavailable) == {"peak_accel_bytes", "peak_host_bytes", "peak_disk_bytes"}


def test_what_was_told_is_read_back() -> None:
    assert MemoryUse.of({"memory": USE.to_json()}) == USE
