"""From a name, a file, the environment and --set to one Experiment, or to one clear line per mistake.

Precedence: defaults < file < HARNESS_SET_a__b=value in the environment < --set a.b=value.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from engines.suggest import did_you_mean
from harness.document import Document, KeyPath, dotted, read_document
from harness.errors import ConfigError
from harness.experiment import Experiment
from harness.fields import MistakesError
from harness.overrides import apply_overrides, from_arguments, from_environment

__all__ = ["Experiment", "config_names", "json_schema", "load_experiment"]

# What pydantic says of these is true, but in the words of Python.
PLAIN_WORDS = {"model_type": "expected keys and values", "tuple_type": "expected a list"}


def config_names() -> list[str]:
    """The experiments that are shipped."""
    folder = resources.files("harness.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_experiment(
    name_or_path: str, sets: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Experiment:
    """A valid experiment; ConfigError names every mistake of its values at once."""
    document = read_document(_locate(name_or_path))
    environment = os.environ if environment is None else environment
    overridden = apply_overrides(document, [*from_environment(environment), *from_arguments(sets)])
    try:
        return Experiment.model_validate(overridden.values)
    except ValidationError as error:
        raise ConfigError(_lines(error, overridden)) from None


def json_schema() -> dict[str, Any]:
    return Experiment.model_json_schema()


def _locate(name_or_path: str) -> Path:
    """A path of the user's wins over a shipped experiment of the same name."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = name_or_path.removesuffix(".yaml")
    names = config_names()
    if name in names:
        return Path(str(resources.files("harness.configs").joinpath(f"{name}.yaml")))
    reason = "is a folder" if path.is_dir() else "no such file, and no shipped experiment of that name"
    raise ConfigError(f"--config {name_or_path}: {reason}; {did_you_mean(Path(name).name, names)}")


def _lines(error: ValidationError, document: Document) -> list[str]:
    lines = []
    for path, message in _mistakes(error):
        one_line = " ".join(message.split())
        lines.append(f"{_origin(path, document.origins)}: {dotted(path)}: {one_line}")
    return list(dict.fromkeys(lines))


def _mistakes(error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    for detail in error.errors(include_url=False):
        path: KeyPath = detail["loc"]
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, MistakesError):
            for keys, message in cause.found:
                yield (*path, *(int(key) if key.isdecimal() else key for key in keys.split(".") if key)), message
        elif isinstance(cause, ValueError):
            yield from ((path, line) for line in str(cause).splitlines())
        elif detail["type"] == "extra_forbidden":
            yield path, f"unknown key; {did_you_mean(str(path[-1]), _keys_at(path[:-1]))}"
        elif detail["type"] in PLAIN_WORDS:
            yield path, f"{PLAIN_WORDS[detail['type']]}, not {_shown(detail['input'])}"
        elif detail["type"] == "missing":
            yield path, "missing"
        else:
            yield path, f"{str(detail['msg']).removeprefix('Input ')}, not {_shown(detail['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _origin(path: KeyPath, origins: Mapping[KeyPath, str]) -> str:
    """Where the value stands, or the nearest thing that holds it."""
    while path and path not in origins:
        path = path[:-1]
    return origins.get(path, "configuration")


def _keys_at(path: Iterable[str | int]) -> list[str]:
    """The keys that the section at this path may have."""
    section: type[BaseModel] = Experiment
    for key in path:
        field = section.model_fields.get(str(key))
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), section)
    return list(section.model_fields)
