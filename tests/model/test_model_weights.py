"""Weights: seeded ones are what their seed says, folders read back, and what cannot be read says why."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.model.config import ModelConfig, load_config
from engines.model.errors import ModelError
from engines.model.layout import layout
from engines.model.weights import (
    INDEX_FILE,
    SINGLE_FILE,
    _tensor_seed,
    check_folder,
    load_weights,
    random_weights,
    save_folder,
)
from tests.model_folders import make_folder, small_config

SMALL_MODELS = (small_config(kv_heads=2), small_config(family="opt"))


@pytest.mark.parametrize("config", SMALL_MODELS, ids=lambda config: config.name)
def test_one_seed_is_one_model(config: ModelConfig) -> None:
    first, second, other = random_weights(config, 7), random_weights(config, 7), random_weights(config, 8)
    for name in layout(config):
        assert torch.equal(first[name], second[name])
        assert not torch.equal(first[name], other[name])


def test_a_tensor_does_not_depend_on_those_before_it() -> None:
    small, deep = random_weights(small_config(layers=1), 7), random_weights(small_config(layers=3), 7)
    assert torch.equal(small["head"], deep["head"])
    assert torch.equal(small["layers.0.qkv"], deep["layers.0.qkv"])
    assert not torch.equal(deep["layers.1.qkv"], deep["layers.0.qkv"])


def test_sixteen_bit_weights_are_the_rounded_ones() -> None:
    config = small_config()
    exact, rounded = random_weights(config, 7), random_weights(config, 7, torch.bfloat16)
    assert torch.equal(exact["layers.2.down"].bfloat16(), rounded["layers.2.down"])


def test_spread_and_norms() -> None:
    weights = random_weights(small_config(), 7, std=0.08)
    assert float(weights["head"].std()) == pytest.approx(0.08, rel=0.02)
    norm = weights["layers.0.ffn_norm"]
    assert float(norm.mean()) == pytest.approx(1.0, abs=0.03)
    assert 0.02 < float(norm.std()) < 0.1


def test_no_bias_and_no_position_is_zero() -> None:
    weights = random_weights(small_config(family="opt"), 7, std=0.08)
    for name in ("qkv_bias", "output_bias", "up_bias", "down_bias", "attention_norm_bias", "ffn_norm_bias"):
        assert 0.01 < float(weights[f"layers.0.{name}"].std()) < 0.04
    assert 0.01 < float(weights["final_norm_bias"].std()) < 0.04
    assert float(weights["positions"].std()) == pytest.approx(0.08, rel=0.02)


def test_the_up_matrix_keeps_the_values_it_had_under_its_first_name() -> None:
    """A seed stands for a model in results and expectations; no renaming may change it."""
    drawn = random_weights(small_config(), 7)["layers.1.up"]
    generator = torch.Generator().manual_seed(_tensor_seed(7, "layers.1.gate_up"))
    assert torch.equal(drawn, torch.randn(drawn.shape, generator=generator) * 0.05)


def test_the_layout_counts_every_parameter() -> None:
    named = [load_config(name) for name in ("llama-3.1-8b", "opt-125m", "opt-175b", "tiny-opt-30m")]
    for config in (*SMALL_MODELS, small_config(kv_heads=1, tied=True), small_config(family="opt", tied=True), *named):
        counted = sum(torch.Size(stored.shape).numel() for stored in layout(config).values())
        assert counted == config.parameters


@pytest.mark.parametrize("config", SMALL_MODELS, ids=lambda config: config.name)
def test_a_saved_folder_reads_back(tmp_path: Path, config: ModelConfig) -> None:
    weights = random_weights(config, 3)
    save_folder(tmp_path, config, weights)
    read = load_weights(tmp_path, load_config(tmp_path))
    for name in layout(config):
        assert torch.equal(read[name], weights[name])


def test_reading_converts_to_the_wanted_dtype(model_root: Path) -> None:
    folder = make_folder(model_root)
    config = load_config(folder)
    rounded = load_weights(folder, config, torch.bfloat16)
    assert torch.equal(rounded["head"], load_weights(folder, config)["head"].bfloat16())


def folder_with(tmp_path: Path, drop: str = "", reshape: str = "") -> Path:
    """The small model's folder with one tensor missing or of another shape."""
    save_folder(tmp_path, small_config(), random_weights(small_config(), 0))
    tensors = load_file(tmp_path / SINGLE_FILE)
    tensors.pop(drop, None)
    if reshape:
        tensors[reshape] = tensors[reshape][:-1].contiguous()
    save_file(tensors, tmp_path / SINGLE_FILE)
    return tmp_path


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, drop="model.layers.2.self_attn.k_proj.weight")
    with pytest.raises(ModelError, match=r"tensor model\.layers\.2\.self_attn\.k_proj\.weight is missing"):
        load_weights(folder, small_config())


def test_a_wrong_shape_is_told_with_both_shapes(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, reshape="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelError, match=r"up_proj\.weight has shape \[351, 128\], config\.json asks for \[352, 128\]"):
        load_weights(folder, small_config())


def test_a_deeper_config_than_the_file_is_refused(model_root: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.layers\.4\.input_layernorm\.weight is missing"):
        load_weights(make_folder(model_root), replace(small_config(), layers=5))


def test_folders_without_readable_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder at"):
        load_weights(tmp_path / "absent", small_config())
    with pytest.raises(ModelError, match=r"holds neither model\.safetensors nor"):
        load_weights(tmp_path, small_config())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(ModelError, match="convert them to safetensors, nothing else is read"):
        load_weights(tmp_path, small_config())
    (tmp_path / SINGLE_FILE).write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not a header")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_weights(tmp_path, small_config())


READERS: dict[str, Callable[[Path, ModelConfig], object]] = {"load": load_weights, "check": check_folder}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("config", SMALL_MODELS, ids=lambda config: config.name)
def test_a_truncated_file_is_refused(tmp_path: Path, config: ModelConfig, reader: str) -> None:
    save_folder(tmp_path, config, random_weights(config, 0))
    cut_at_half(tmp_path / SINGLE_FILE)
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read as safetensors") as refusal:
        READERS[reader](tmp_path, config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("config", SMALL_MODELS, ids=lambda config: config.name)
def test_one_truncated_shard_of_several_is_named(tmp_path: Path, config: ModelConfig, reader: str) -> None:
    broken = shards(tmp_path, config)[1]
    cut_at_half(broken)
    with pytest.raises(ModelError, match=rf"{broken.name} cannot be read as safetensors") as refusal:
        READERS[reader](tmp_path, config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("reader", READERS)
def test_an_index_that_names_the_wrong_shard_is_refused(tmp_path: Path, reader: str) -> None:
    first, second = shards(tmp_path, small_config())
    shutil.copyfile(first, second)
    with pytest.raises(ModelError, match=r"tensor model\.\S+ cannot be read \(.*\): download the folder again"):
        READERS[reader](tmp_path, small_config())


def cut_at_half(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def shards(folder: Path, config: ModelConfig) -> list[Path]:
    """The model in two files and an index."""
    save_folder(folder, config, random_weights(config, 0))
    tensors = sorted(load_file(folder / SINGLE_FILE).items())
    (folder / SINGLE_FILE).unlink()
    files = [folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    halves = [dict(tensors[0::2]), dict(tensors[1::2])]
    for file, half in zip(files, halves, strict=True):
        save_file(half, file)
    names = {name: file.name for file, half in zip(files, halves, strict=True) for name in half}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": names}), encoding="utf-8")
    return files


def test_broken_shard_indices(tmp_path: Path) -> None:
    index = tmp_path / INDEX_FILE
    for text in ("{", "{}", "[]", '{"weight_map": []}'):
        index.write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match="is no safetensors index"):
            load_weights(tmp_path, small_config())
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}), "utf-8")
    with pytest.raises(ModelError, match=r"model-00001-of-00002\.safetensors is missing, although"):
        load_weights(tmp_path, small_config())
