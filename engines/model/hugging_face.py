"""config.json of a Hugging Face folder, read and written, for both families.

Better no answer than one computed by a model that is not the one asked for: what we do not compute is refused. Absent
keys take the defaults of transformers' LlamaConfig or OPTConfig, as they do when transformers reads the folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.model.errors import ModelError
from engines.model.shape import OPT_NORM_EPS, ModelConfig, RopeScaling

ARCHITECTURES = {"llama": "LlamaForCausalLM", "opt": "OPTForCausalLM"}

# What a key must say where it says anything.
LLAMA_ONLY = {"hidden_act": "silu"}
OPT_ONLY = {
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "enable_bias": True,
    "layer_norm_elementwise_affine": True,
    "_remove_final_layer_norm": False,
}


def from_hugging_face(raw: Mapping[str, Any], path: Path) -> ModelConfig:
    """`raw` is what `path`, the config.json of a folder, holds."""
    family = _family(raw, path)
    _refuse(raw, path, "quantization_config")
    try:
        return _llama(raw, path) if family == "llama" else _opt(raw, path)
    except KeyError as error:
        raise ModelError(f"{path}: key {error.args[0]!r} is missing") from error


def to_hugging_face(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The config.json that transformers reads, in the form that its version 5 writes."""
    written = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.query_heads,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": config.bos_id,
        "eos_token_id": list(config.eos_ids) or None,
        "dtype": dtype,
    }
    return written | (_llama_keys(config) if config.family == "llama" else _opt_keys(config))


def _family(raw: Mapping[str, Any], path: Path) -> str:
    model_type = raw.get("model_type")
    for family, architecture in ARCHITECTURES.items():
        if model_type == family and architecture in (raw.get("architectures") or [architecture]):
            return family
    supported = " and ".join(f"{family!r} with {name}" for family, name in ARCHITECTURES.items())
    raise ModelError(
        f"{path}: model_type {model_type!r} with architectures {raw.get('architectures')} is not supported: "
        f"only {supported} are"
    )


def _refuse(raw: Mapping[str, Any], path: Path, *keys: str) -> None:
    for key in keys:
        if raw.get(key):
            raise ModelError(f"{path}: {key} is set, and models with it are not supported")


def _allow_only(raw: Mapping[str, Any], path: Path, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if raw.get(key, value) != value:
            raise ModelError(f"{path}: {key} {raw[key]!r} is not supported: only {value!r} is")


def _head_dim(hidden_size: Any, heads: Any) -> int:
    """0 where they are no sizes: the config then says which is not."""
    return hidden_size // heads if isinstance(hidden_size, int) and isinstance(heads, int) and heads > 0 else 0


def _ids(raw: int | list[int] | None) -> tuple[int, ...]:
    if raw is None:
        return ()
    return (raw,) if isinstance(raw, int) else tuple(raw)


# --- Llama ------------------------------------------------------------------------------------------------------------


def _llama(raw: Mapping[str, Any], path: Path) -> ModelConfig:
    _refuse(raw, path, "attention_bias", "mlp_bias")
    _allow_only(raw, path, LLAMA_ONLY)
    heads, hidden_size = raw["num_attention_heads"], raw["hidden_size"]
    theta, scaling = _rope(raw, path)
    return ModelConfig(
        family="llama",
        name=path.parent.resolve().name,
        vocab_size=raw["vocab_size"],
        hidden_size=hidden_size,
        ffn_size=raw["intermediate_size"],
        layers=raw["num_hidden_layers"],
        query_heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or _head_dim(hidden_size, heads),
        max_positions=raw.get("max_position_embeddings", 2048),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        bos_id=raw.get("bos_token_id", 1),
        eos_ids=_ids(raw.get("eos_token_id", 2)),
    )


def _rope(raw: Mapping[str, Any], path: Path) -> tuple[float, RopeScaling | None]:
    """Transformers 5 writes one `rope_parameters`; before it, `rope_theta` stood beside `rope_scaling`."""
    rope = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta", raw.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ModelError(f"{path}: a partial_rotary_factor other than 1 is not supported")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ModelError(f"{path}: rope type {kind!r} is not supported: 'default' and 'llama3' are")
    return theta, RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_positions=int(rope["original_max_position_embeddings"]),
    )


def _llama_keys(config: ModelConfig) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling := config.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    return {
        "intermediate_size": config.ffn_size,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "rope_parameters": rope,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": False,
        "mlp_bias": False,
        **LLAMA_ONLY,
    }


# --- OPT --------------------------------------------------------------------------------------------------------------


def _opt(raw: Mapping[str, Any], path: Path) -> ModelConfig:
    """OPT-350m is refused twice: its norms come after attention, and its embeddings are narrower than its layers."""
    _allow_only(raw, path, OPT_ONLY)
    heads, hidden_size = raw["num_attention_heads"], raw["hidden_size"]
    if (width := raw.get("word_embed_proj_dim")) not in (None, hidden_size):
        raise ModelError(
            f"{path}: word_embed_proj_dim {width!r} is not supported: only {hidden_size!r}, the hidden_size, is"
        )
    return ModelConfig(
        family="opt",
        name=path.parent.resolve().name,
        vocab_size=raw["vocab_size"],
        hidden_size=hidden_size,
        ffn_size=raw["ffn_dim"],
        layers=raw["num_hidden_layers"],
        query_heads=heads,
        kv_heads=heads,
        head_dim=_head_dim(hidden_size, heads),
        max_positions=raw.get("max_position_embeddings", 2048),
        rope_theta=None,
        rope_scaling=None,
        norm_eps=OPT_NORM_EPS,
        tied_head=bool(raw.get("tie_word_embeddings", True)),
        bos_id=raw.get("bos_token_id", 2),
        eos_ids=_ids(raw.get("eos_token_id", 2)),
    )


def _opt_keys(config: ModelConfig) -> dict[str, Any]:
    return {"ffn_dim": config.ffn_size, "word_embed_proj_dim": config.hidden_size, **OPT_ONLY}
