"""The shape of a model: its sizes, and what they imply in parameters and bytes.

Read from a shipped shape (`shapes/*.yaml`) or from the config.json of a local Hugging Face folder. Holds no weights
and imports no torch, so that a planner or a command line can ask for sizes at no cost.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from engines.model.errors import ModelError

SHAPES_FOLDER = Path(__file__).parent / "shapes"
_SIZES = ("vocab_size", "hidden_size", "ffn_size", "layers", "query_heads", "kv_heads", "head_dim", "max_positions")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Llama 3's stretching of the slow rotary frequencies to longer contexts than it was pre-trained on."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer of the Llama family: no biases, SwiGLU, RMS norms, rotary positions."""

    name: str
    vocab_size: int
    hidden_size: int
    ffn_size: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    norm_eps: float
    tied_head: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in _SIZES:
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ModelError(f"model {self.name}: {name} must be a positive whole number, not {size!r}")
        if self.query_heads % self.kv_heads:
            raise ModelError(
                f"model {self.name}: {self.query_heads} query heads cannot share {self.kv_heads} KV heads evenly"
            )
        if self.head_dim % 2:
            raise ModelError(f"model {self.name}: rotary positions need an even head_dim, not {self.head_dim}")

    @property
    def query_size(self) -> int:
        """Width of all query heads side by side, also of the attention output."""
        return self.query_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key heads side by side; the values have the same."""
        return self.kv_heads * self.head_dim

    @property
    def linear_parameters_per_layer(self) -> int:
        """Elements of the matrices one layer streams: q, k, v, output, gate, up, down."""
        attention = self.hidden_size * (2 * self.query_size + 2 * self.kv_size)
        return attention + 3 * self.hidden_size * self.ffn_size

    @property
    def parameters(self) -> int:
        vocabulary = self.vocab_size * self.hidden_size * (1 if self.tied_head else 2)
        norms = self.hidden_size * (2 * self.layers + 1)
        return vocabulary + norms + self.layers * self.linear_parameters_per_layer

    def weight_bytes(self, dtype_bytes: int) -> int:
        return self.parameters * dtype_bytes

    def kv_bytes_per_token_per_layer(self, dtype_bytes: int) -> int:
        return 2 * self.kv_size * dtype_bytes


def list_shapes() -> list[str]:
    """Names of the shapes that ship with the harness."""
    return sorted(path.stem for path in SHAPES_FOLDER.glob("*.yaml"))


def load_config(name_or_folder: str | Path) -> ModelConfig:
    """The config of a shipped shape by name, or of a local folder with a Hugging Face config.json."""
    if str(name_or_folder) in list_shapes():
        return _read_shape(SHAPES_FOLDER / f"{name_or_folder}.yaml")
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return _read_folder(folder)
    raise ModelError(_unknown_model(name_or_folder))


def _unknown_model(name_or_folder: str | Path) -> str:
    name = str(name_or_folder)
    if isinstance(name_or_folder, Path) or "/" in name:
        return f"no model folder at {name}: give a local folder with config.json and safetensors, or a shape name"
    close = difflib.get_close_matches(name.lower(), list_shapes(), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown model {name!r}: {hint}known shapes: {', '.join(list_shapes())}; or give a local folder"


def _read_shape(path: Path) -> ModelConfig:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if wrong := raw.keys() ^ {field.name for field in fields(ModelConfig)}:
        raise ModelError(f"{path}: missing or unknown keys: {', '.join(sorted(wrong))}")
    scaling = RopeScaling(**raw["rope_scaling"]) if raw["rope_scaling"] else None
    return ModelConfig(**{**raw, "rope_scaling": scaling, "eos_ids": tuple(raw["eos_ids"])})


def _read_folder(folder: Path) -> ModelConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no config.json: give a Hugging Face model folder")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} must hold a JSON object")
    _refuse_unsupported(raw, path)
    return _from_hugging_face(raw, path)


def _refuse_unsupported(raw: Mapping[str, Any], path: Path) -> None:
    """Better no answer than one computed by a model that is not the one asked for."""
    model_type = raw.get("model_type")
    architectures = raw.get("architectures") or ["LlamaForCausalLM"]
    if model_type != "llama" or "LlamaForCausalLM" not in architectures:
        raise ModelError(
            f"{path}: model_type {model_type!r} with architectures {architectures} is not supported: "
            "only 'llama' with LlamaForCausalLM is"
        )
    for key in ("attention_bias", "mlp_bias", "quantization_config"):
        if raw.get(key):
            raise ModelError(f"{path}: {key} is set, and models with it are not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{path}: hidden_act {raw['hidden_act']!r} is not supported: only 'silu' is")


def _from_hugging_face(raw: Mapping[str, Any], path: Path) -> ModelConfig:
    """Absent keys take the defaults of transformers' LlamaConfig, as they do when transformers reads the folder."""
    try:
        heads, hidden_size = raw["num_attention_heads"], raw["hidden_size"]
        theta, scaling = _rope(raw, path)
        return ModelConfig(
            name=path.parent.resolve().name,
            vocab_size=raw["vocab_size"],
            hidden_size=hidden_size,
            ffn_size=raw["intermediate_size"],
            layers=raw["num_hidden_layers"],
            query_heads=heads,
            kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or hidden_size // heads,
            max_positions=raw.get("max_position_embeddings", 2048),
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            tied_head=bool(raw.get("tie_word_embeddings", False)),
            bos_id=raw.get("bos_token_id", 1),
            eos_ids=_ids(raw.get("eos_token_id", 2)),
        )
    except KeyError as error:
        raise ModelError(f"{path}: key {error.args[0]!r} is missing") from error


def _ids(raw: int | list[int] | None) -> tuple[int, ...]:
    if raw is None:
        return ()
    return (raw,) if isinstance(raw, int) else tuple(raw)


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


def to_hugging_face(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The config.json that transformers reads, in the form that its version 5 writes."""
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
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.query_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions,
        "rope_parameters": rope,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": config.bos_id,
        "eos_token_id": list(config.eos_ids) or None,
        "dtype": dtype,
    }
