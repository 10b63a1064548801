"""Where a model's shape comes from: a shipped shape (`shapes/*.yaml`), or the config.json of a local folder.

Holds no weights and imports no torch, so that a planner or a command line can ask for sizes at no cost.
"""

import difflib
import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import yaml

from engines.model.errors import ModelError
from engines.model.hugging_face import from_hugging_face
from engines.model.shape import ModelConfig, RopeScaling

__all__ = ["ModelConfig", "RopeScaling", "list_shapes", "load_config"]

SHAPES_FOLDER = Path(__file__).parent / "shapes"


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


@lru_cache(maxsize=64)
def _read_shape(path: Path) -> ModelConfig:
    """Once a process: sizes are asked for in every cell of a plan, and what is shipped does not change."""
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
    return from_hugging_face(raw, path)
