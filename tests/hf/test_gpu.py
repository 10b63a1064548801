"""The same on a GPU: its tokens, and where Accelerate put the weights. float32, so that tokens can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.model.config import load_config
from engines.model.reference import compare, greedy
from tests.hf.conftest import Load
from tests.hf.engines import opened, serve

pytestmark = pytest.mark.gpu

WAYS: dict[str, dict[str, Any]] = {
    "resident": {},
    "on the host": {"offload": "cpu"},
    "on the disk": {"offload": "disk"},
    "spread": {"device_map": "auto", "max_memory": {"0": "2MB", "cpu": "1GB"}},
    "a map that spreads nothing": {"device_map": "auto"},
    "spread to the disk": {"device_map": "auto", "max_memory": {"0": "2MB", "cpu": "1MB"}},
}


@pytest.mark.parametrize("way", WAYS)
def test_tokens_equal_transformers(load: Load, tmp_path: Path, way: str) -> None:
    prompts, counts = zip(*((request.token_ids, request.new_tokens) for request in load.requests), strict=True)
    oracle = greedy(load.folder, prompts, counts, device="cuda")
    with opened(load.folder, tmp_path / "files", backend="cuda", **WAYS[way]) as engine:
        answers, _ = serve(engine, load.requests)
        resolved = engine.resolved
    parity = compare(answers, oracle)
    assert not parity.differences, str(parity)
    assert resolved["device"] == "cuda"
    assert resolved["workspace_bytes"] > 0, "measured while warming up"


@pytest.mark.parametrize("way", [name for name in WAYS if name.startswith(("on", "spread"))])
def test_weights_are_not_all_on_the_gpu(load: Load, tmp_path: Path, way: str) -> None:
    with opened(load.folder, tmp_path / "files", backend="cuda", **WAYS[way]) as engine:
        resolved = engine.resolved
    total = load_config(load.folder).weight_bytes(4)
    assert resolved["weight_bytes"] == total
    assert resolved["accel_weight_bytes"] < total
    assert (resolved["disk_weight_bytes"] > 0) == ("disk" in way)


def test_without_max_memory_the_envelope_is_kept(load: Load, tmp_path: Path) -> None:
    config = load_config(load.folder)
    kv_bytes = 1024 * config.layers * config.kv_bytes_per_token_per_layer(4)
    memory = config.weight_bytes(4) * 3 // 4 + kv_bytes
    given: dict[str, Any] = {"device_map": "auto", "accel_kv_tokens": 1024, "accel_memory_bytes": memory}
    with opened(load.folder, tmp_path / "files", backend="cuda", **given) as engine:
        resolved = engine.resolved
    assert resolved["accel_weight_bytes"] + resolved["accel_kv_bytes"] <= memory
    assert resolved["host_weight_bytes"] > 0
