"""Shapes by name, Hugging Face folders of both generations, and one clear line per mistake."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.lp_balanced.shapes import OPT
from engines.model import reference
from engines.model.config import ModelConfig, list_shapes, load_config
from engines.model.errors import ModelError
from engines.model.hugging_face import to_hugging_face
from engines.model.shape import Family
from tests.model_folders import LLAMA3_SCALING, small_config

# Published sizes, counted from the released checkpoints.
PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-30b": 32_528_943_616,
    "llama-3.1-8b": 8_030_261_248,
    "opt-125m": 125_239_296,
}


def write_config(folder: Path, family: Family = "llama", /, **changes: Any) -> Path:
    """A folder whose config.json is the small model's, with keys changed, or removed where the value is `...`."""
    raw = {**to_hugging_face(small_config(family=family), "float32"), **changes}
    kept = {key: value for key, value in raw.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    return folder


def test_every_shape_loads_under_its_own_name() -> None:
    assert len(list_shapes()) >= 7
    for name in list_shapes():
        assert load_config(name).name == name


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_released_checkpoint(name: str) -> None:
    config = load_config(name)
    assert config.parameters == PARAMETERS[name]
    assert config.weight_bytes(2) == 2 * PARAMETERS[name]


def test_kv_bytes_follow_the_kv_heads() -> None:
    assert load_config("llama-2-7b").kv_bytes_per_token_per_layer(2) == 16 * 1024
    assert load_config("llama-3.1-8b").kv_bytes_per_token_per_layer(2) == 4 * 1024


def test_linear_parameters_leave_out_norms_and_vocabulary() -> None:
    config = small_config(kv_heads=2)
    assert config.linear_parameters_per_layer == 128 * (128 + 64 + 64 + 128) + 3 * 128 * 352


COUNTED = ("llama-0.5b", "llama-3.1-8b", "opt-125m", "opt-6.7b", "opt-175b", "tiny-opt-30m")


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_those_that_transformers_counts(name: str) -> None:
    """On the meta device, where a model has sizes and no values."""
    transformers: Any = importlib.import_module("transformers")
    config = load_config(name)
    keys = to_hugging_face(config, "float32")
    with reference.quiet(), torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**keys))
    assert config.parameters == sum(parameter.numel() for parameter in model.parameters())
    inner = model.model if config.family == "llama" else model.model.decoder
    matrices = [parameter.numel() for parameter in inner.layers[0].parameters() if parameter.dim() == 2]
    assert config.linear_parameters_per_layer == sum(matrices)
    assert config.ffn_matrices == len(matrices) - 4


@pytest.mark.parametrize("name", OPT)
def test_planned_models_are_the_shapes_of_that_name(name: str) -> None:
    planned, shape = OPT[name], load_config(name)
    assert (planned.hidden, planned.ffn, planned.layers, planned.heads) == (
        shape.hidden_size,
        shape.ffn_size,
        shape.layers,
        shape.query_heads,
    )
    assert planned.layer_bytes == 2 * shape.linear_parameters_per_layer


SMALL_MODELS = (
    small_config(kv_heads=2, tied=True, llama3_scaling=True),
    small_config(family="opt"),
    small_config(family="opt", tied=True),
)


@pytest.mark.parametrize("config", SMALL_MODELS)
def test_a_folder_reads_back_what_was_written(tmp_path: Path, config: ModelConfig) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_hugging_face(config, "float32")), encoding="utf-8")
    assert load_config(tmp_path) == replace(config, name=tmp_path.name)


def test_rope_keys_from_before_transformers_5(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = load_config(write_config(tmp_path, rope_parameters=..., rope_theta=500000.0, rope_scaling=scaling))
    assert (config.rope_theta, config.rope_scaling) == (500000.0, LLAMA3_SCALING)


def test_absent_keys_take_the_defaults_of_transformers(tmp_path: Path) -> None:
    optional = ("rope_parameters", "num_key_value_heads", "head_dim", "eos_token_id", "rms_norm_eps", "bos_token_id")
    config = load_config(write_config(tmp_path, **dict.fromkeys(optional, ...)))
    assert (config.kv_heads, config.head_dim, config.rope_theta, config.norm_eps) == (4, 32, 10000.0, 1e-6)
    assert (config.bos_id, config.eos_ids) == (1, (2,))


def test_absent_keys_of_an_opt_folder_take_the_defaults_of_transformers(tmp_path: Path) -> None:
    required = ("model_type", "vocab_size", "hidden_size", "ffn_dim", "num_hidden_layers", "num_attention_heads")
    optional: dict[str, Any] = dict.fromkeys(
        to_hugging_face(small_config(family="opt"), "float32").keys() - set(required), ...
    )
    config = load_config(write_config(tmp_path, "opt", **optional))
    assert (config.max_positions, config.tied_head, config.norm_eps) == (2048, True, 1e-5)
    assert (config.bos_id, config.eos_ids) == (2, (2,))
    assert (config.rope_theta, config.rope_scaling) == (None, None)


@pytest.mark.parametrize(("raw", "ids"), [(None, ()), (7, (7,)), ([7, 9], (7, 9))])
def test_end_tokens_may_be_none_one_or_several(tmp_path: Path, raw: Any, ids: tuple[int, ...]) -> None:
    assert load_config(write_config(tmp_path, eos_token_id=raw)).eos_ids == ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "only 'llama' with LlamaForCausalLM"),
        ({"attention_bias": True}, "attention_bias is set"),
        ({"mlp_bias": True}, "mlp_bias is set"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "key 'factor' is missing"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"hidden_size": ...}, "key 'hidden_size' is missing"),
        ({"num_key_value_heads": 3}, "cannot share 3 KV heads"),
        ({"head_dim": 33}, "even head_dim"),
        ({"num_hidden_layers": 0}, "layers must be a positive whole number"),
        ({"vocab_size": "many"}, "vocab_size must be a positive whole number"),
    ],
)
def test_a_folder_we_cannot_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_config(write_config(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["OPTForSequenceClassification"]}, "'opt' with OPTForCausalLM are"),
        ({"do_layer_norm_before": False}, "do_layer_norm_before False is not supported: only True is"),
        ({"word_embed_proj_dim": 64}, "word_embed_proj_dim 64 is not supported: only 128, the hidden_size, is"),
        ({"activation_function": "gelu"}, "activation_function 'gelu' is not supported: only 'relu' is"),
        ({"enable_bias": False}, "enable_bias False"),
        ({"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine False"),
        ({"_remove_final_layer_norm": True}, "_remove_final_layer_norm True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set"),
        ({"ffn_dim": ...}, "key 'ffn_dim' is missing"),
        ({"num_attention_heads": 3}, "hidden_size of 128 evenly among its heads, not into 3 of 42"),
        ({"num_attention_heads": 0}, "query_heads must be a positive whole number"),
        ({"hidden_size": "many", "word_embed_proj_dim": ...}, "hidden_size must be a positive whole number"),
    ],
)
def test_an_opt_folder_we_cannot_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as refusal:
        load_config(write_config(tmp_path, "opt", **changes))
    assert "\n" not in str(refusal.value)


def test_rotary_positions_belong_to_one_family_only() -> None:
    with pytest.raises(ModelError, match="OPT has no rotary positions"):
        replace(small_config(family="opt"), rope_theta=10000.0)
    with pytest.raises(ModelError, match="rotary positions need a rope_theta"):
        replace(small_config(), rope_theta=None)


def test_mistaken_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"did you mean llama-2-7b\? known shapes: llama-0.5b, llama-2-13b, "):
        load_config("llama2-7b")
    with pytest.raises(ModelError, match="unknown model 'zzz': known shapes"):
        load_config("zzz")
    with pytest.raises(ModelError, match="no model folder at /nowhere/at/all"):
        load_config("/nowhere/at/all")
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelError, match="must hold a JSON object"):
        load_config(tmp_path)


def test_a_config_cannot_be_changed() -> None:
    config: Any = small_config()
    with pytest.raises(AttributeError):
        config.layers = 3


def test_listing_models_does_not_import_torch() -> None:
    code = "import sys; from engines.model.config import list_shapes; list_shapes(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
