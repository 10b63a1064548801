"""Accelerate's offload: weights are where it says, there once, and on the accelerator for no longer than needed."""

from __future__ import annotations

import gc
import shutil
from collections import namedtuple
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engines.hf import weights
from engines.model.config import load_config
from engines.model.reference import quiet
from tests.hf.engines import Asked, opened, serve, settings
from tests.model_folders import make_folder

SPREAD: dict[str, Any] = {"device_map": "auto", "max_memory": {"cpu": "1500KB"}}  # room for the embedding


@pytest.fixture(scope="module")
def folder(model_root: Path) -> Path:
    return make_folder(model_root)


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Each memory counts once, however many tensors look at it."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def alive() -> list[Tensor]:
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), Tensor) and each.device.type == "cpu"]


def weight_bytes(folder: Path) -> int:
    return load_config(folder).weight_bytes(4)


@pytest.mark.parametrize(
    ("options", "copies"), [({}, 1), ({"offload": "cpu"}, 1), ({"offload": "disk"}, 0)], ids=["none", "cpu", "disk"]
)
def test_weights_are_in_memory_once_or_not_at_all(
    folder: Path, tmp_path: Path, options: dict[str, Any], copies: int
) -> None:
    before = stored_bytes(alive())
    with opened(folder, tmp_path / "files", **options) as engine:
        serve(engine, [Asked([5, 6, 7], 3)])
        grown = stored_bytes(alive()) - before
        is_meta = {weight.is_meta for weight in engine._model.parameters()}
    assert is_meta == {bool(options)}
    assert grown == pytest.approx(copies * weight_bytes(folder), abs=0.01 * weight_bytes(folder))


@pytest.mark.parametrize("options", [{"offload": "cpu"}, {"offload": "disk"}, SPREAD], ids=["cpu", "disk", "spread"])
def test_they_come_in_module_by_module(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    seen: list[tuple[int, int]] = []
    with opened(folder, tmp_path / "files", **options) as engine:
        model = engine._model
        at_home = {name for name, weight in model.named_parameters() if not weight.is_meta}
        module = model.model.layers[2].mlp.down_proj
        compute = module._old_forward  # what Accelerate's hooks are around

        def watched(states: Tensor) -> Tensor:
            there = [(name, weight) for name, weight in model.named_parameters() if not weight.is_meta]
            visitors = sum(weight.nbytes for name, weight in there if name not in at_home)
            seen.append((visitors, stored_bytes(weight for _, weight in there)))
            result: Tensor = compute(states)
            return result

        module._old_forward = watched
        _, steps = serve(engine, [Asked([5, 6, 7], 3)])
        claimed = engine.resolved["accel_weight_bytes"]
    own = module.weight.nbytes
    assert [visitors for visitors, _ in seen] == [own] * len(steps)
    assert max(total for _, total in seen) <= claimed < weight_bytes(folder)


def test_what_is_said_of_places(folder: Path, tmp_path: Path) -> None:
    total, config = weight_bytes(folder), load_config(folder)
    embedding = 4 * config.vocab_size * config.hidden_size
    ways: dict[str, dict[str, Any]] = {
        "none": {},
        "cpu": {"offload": "cpu"},
        "disk": {"offload": "disk"},
        "map": SPREAD,
    }
    found = {}
    for name, options in ways.items():
        with opened(folder, tmp_path / "files", **options) as engine:
            found[name] = engine.resolved
        shutil.rmtree(tmp_path / "files")
    assert {each["weight_bytes"] for each in found.values()} == {total}
    assert "accel_weight_bytes" not in found["none"]
    assert (found["cpu"]["host_weight_bytes"], found["cpu"]["disk_weight_bytes"]) == (total, 0)
    assert (found["disk"]["host_weight_bytes"], found["disk"]["disk_weight_bytes"]) == (0, total)
    assert found["cpu"]["accel_weight_bytes"] == found["disk"]["accel_weight_bytes"] == embedding
    spread = found["map"]
    assert 0 < spread["accel_weight_bytes"] - embedding <= 1_500_000, "what is at home, and a visitor"
    assert spread["accel_weight_bytes"] - embedding + spread["disk_weight_bytes"] == total
    assert "modules on disk" in spread["device_map"]


def test_a_tied_head_counts_once(model_root: Path, tmp_path: Path) -> None:
    folder = make_folder(model_root, tied=True)
    for options in ({}, {"offload": "cpu"}, {"offload": "disk"}, SPREAD):
        with opened(folder, tmp_path / "files", **options) as engine:
            assert engine.resolved["weight_bytes"] == weight_bytes(folder)


def test_without_max_memory_the_envelope_is_kept(folder: Path, tmp_path: Path) -> None:
    """Half of the weights fit beside the KV; the rest is on the disk, read from the model's own files."""
    kv_bytes = 1024 * 4 * load_config(folder).kv_bytes_per_token_per_layer(4)
    memory = weight_bytes(folder) // 2 + kv_bytes
    with opened(
        folder, tmp_path / "files", device_map="auto", accel_kv_tokens=1024, accel_memory_bytes=memory
    ) as engine:
        resolved = engine.resolved
    assert resolved["accel_weight_bytes"] + resolved["accel_kv_bytes"] <= memory
    assert resolved["disk_weight_bytes"] >= weight_bytes(folder) // 2
    assert list((tmp_path / "files").iterdir()) == []


def test_a_map_of_a_model_that_fits_spreads_nothing(folder: Path, tmp_path: Path) -> None:
    with opened(folder, tmp_path / "files", device_map="auto") as engine:
        assert engine.resolved["device_map"] == "everything on cpu"
        assert "accel_weight_bytes" not in engine.resolved
        assert serve(engine, [Asked([5, 6, 7], 3)])[0][0]


def test_a_disk_without_room_is_said_before_it_is_full(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    needed = f"{weight_bytes(folder):,}"
    with (
        pytest.raises(
            RuntimeError, match=rf"^offload: disk needs {needed} bytes in .*, 1,000 are free; set offload_folder$"
        ),
        opened(folder, tmp_path / "files", offload="disk"),
    ):
        pass
    assert list((tmp_path / "files").iterdir()) == []


def test_offloaded_weights_are_those_of_the_type_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    with opened(folder, tmp_path / "files", offload="disk", dtype="bfloat16") as engine:
        stored = engine._model.model.layers[0].mlp.down_proj._hf_hook.weights_map
        assert stored["weight"].dtype is torch.bfloat16
        assert engine.resolved["weight_bytes"] == weight_bytes(folder) // 2


def test_a_gpu_that_would_get_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    """Accelerate would compute on the CPU then, under the GPU's name."""
    with quiet(), pytest.raises(RuntimeError, match=r"^device_map: nothing fits on the GPU"):
        weights.load(settings(folder, tmp_path, backend="cuda", device_map={"": "cpu"}))
