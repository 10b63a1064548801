"""Shapes by name, Hugging Face folders of both generations, and one clear line per mistake."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.model.config import list_shapes, load_config, to_hugging_face
from engines.model.errors import ModelError
from tests.model_folders import LLAMA3_SCALING, small_config

# Published sizes, counted from the released checkpoints.
PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-30b": 32_528_943_616,
    "llama-3.1-8b": 8_030_261_248,
}


def write_config(folder: Path, **changes: Any) -> Path:
    """A folder whose config.json is the small model's, with keys changed, or removed where the value is `...`."""
    raw = {**to_hugging_face(small_config(), "float32"), **changes}
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


def test_a_folder_reads_back_what_was_written(tmp_path: Path) -> None:
    config = small_config(kv_heads=2, tied=True, llama3_scaling=True)
    (tmp_path / "config.json").write_text(json.dumps(to_hugging_face(config, "float32")), encoding="utf-8")
    read = load_config(tmp_path)
    assert read.name == tmp_path.name
    assert read.rope_scaling == LLAMA3_SCALING
    assert to_hugging_face(read, "float32") == to_hugging_face(config, "float32")


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
