"""Reads a machine from YAML: every constant is {value, source, grade}, and all mistakes of a file are reported at once.

Not here: what the numbers mean (machine.py), or what they predict (engines.core.cost).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml

from engines.hardware.machine import ByShape, ByTokens, Grade, Hardware, Source
from engines.hardware.ratio_tables import by_shape, by_tokens, number, shape_problems, token_problems
from engines.suggest import did_you_mean

MAY_BE_ZERO = frozenset({"fixed_s", "op_fixed_s", "latency_s", "host_overhead_per_step_s"})
TEXT_KEYS = ("name", "description", "gpu_name")
CONSTANT_KEYS = frozenset({"value", "source", "grade", "low", "high"})
SLOWDOWNS = "interference."  # a section of factors on what ops take alone


class HardwareError(ValueError):
    """A machine file that cannot be used; one line per mistake."""


def catalogue_names() -> list[str]:
    folder = resources.files("engines.hardware")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_hardware(name_or_path: str) -> Hardware:
    """A machine of the catalogue, or one that a user wrote."""
    return _parsed(name_or_path, _read(name_or_path))


@lru_cache(maxsize=64)
def _parsed(name_or_path: str, text: str) -> Hardware:
    """A cell asks for its machine many times, and YAML takes some 20 ms each."""
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise HardwareError(f"hardware {name_or_path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise HardwareError(f"hardware {name_or_path}: expected keys and values, such as gpu: and cpu:")
    reading = _Reading()
    values = _section(Hardware, raw, "", reading)
    if reading.problems:
        raise HardwareError("\n".join(f"hardware {name_or_path}: {problem}" for problem in reading.problems))
    return Hardware(**values, sources=reading.sources)


def _read(name_or_path: str) -> str:
    path = Path(name_or_path)
    names = catalogue_names()
    try:
        if name_or_path in names:
            return resources.files("engines.hardware").joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise HardwareError(f"hardware {name_or_path}: not a UTF-8 text file") from None
    except (OSError, ValueError):
        hint = did_you_mean(name_or_path, names)
        raise HardwareError(
            f'hardware "{name_or_path}" is neither in the catalogue nor a readable file; {hint}'
        ) from None


@dataclass(slots=True)
class _Reading:
    """What has been found in a file so far, besides the numbers."""

    sources: dict[str, Source] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _section(cls: type[Any], raw: object, path: str, reading: _Reading) -> dict[str, Any]:
    """The values for the fields of a dataclass, sections within sections. A field with a default may be left out."""
    hints = {name: hint for name, hint in get_type_hints(cls).items() if name != "sources"}
    if not isinstance(raw, dict):
        reading.problems.append(f"{path}: expected a section with {', '.join(hints)}")
        return {}
    for key in raw:
        if key not in hints:
            reading.problems.append(f"{_join(path, key)}: unknown key; {did_you_mean(str(key), hints)}")
    optional = {item.name for item in fields(cls) if item.default is not MISSING}
    values = {}
    for name, hint in hints.items():
        where = _join(path, name)
        if name in raw:
            values[name] = _value(_without_none(hint), raw[name], where, reading)
        elif name not in optional:
            reading.problems.append(f"{where}: missing")
    return values


def _without_none(hint: Any) -> Any:
    """What an optional field holds where it is given."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if NoneType in get_args(hint) else hint


def _value(hint: Any, raw: object, path: str, reading: _Reading) -> Any:
    if path in TEXT_KEYS:
        return _text(raw, path, reading)
    if hint in (ByTokens, ByShape):
        return _table(hint, raw, path, reading)
    if isinstance(hint, type) and is_dataclass(hint):
        known = len(reading.problems)
        values = _section(hint, raw, path, reading)
        return hint(**values) if len(reading.problems) == known else None
    if hint in (int, float):
        value = _constant(raw, path, reading)
        return round(value) if hint is int and math.isfinite(value) else value
    return _numbers_by_dtype(raw, path, reading)


def _numbers_by_dtype(raw: object, path: str, reading: _Reading) -> Mapping[str, float]:
    if not isinstance(raw, dict) or not raw:
        reading.problems.append(f"{path}: expected one constant per dtype, such as float16:")
        return {}
    return {str(dtype): _constant(constant, _join(path, dtype), reading) for dtype, constant in raw.items()}


def _table(hint: Any, raw: object, path: str, reading: _Reading) -> Any:
    """One source for all of its points."""
    problems_of, made = (token_problems, by_tokens) if hint is ByTokens else (shape_problems, by_shape)
    known = len(reading.problems)
    reading.problems.extend(f"{path}{problem}" for problem in problems_of(raw))
    if len(reading.problems) > known or not isinstance(raw, dict):
        return None
    if source := _source(raw, path, reading):
        reading.sources[path] = source
    return made(raw)


def _text(raw: object, path: str, reading: _Reading) -> str:
    if not isinstance(raw, str) or not raw.strip():
        reading.problems.append(f"{path}: expected text, not {raw!r}")
        return ""
    if path == "gpu_name":
        try:
            re.compile(raw)
        except re.error as error:
            reading.problems.append(f"{path}: not a regular expression: {error}")
    return raw


def _constant(raw: object, path: str, reading: _Reading) -> float:
    """One number, noting where it comes from. NaN stands in for one that could not be read (and has been noted)."""
    problems = reading.problems
    if not isinstance(raw, dict) or not {"value", "source", "grade"} <= raw.keys():
        problems.append(f"{path}: expected {{value, source, grade}}: every constant says where it comes from")
        return math.nan
    problems.extend(f"{path}.{key}: unknown key" for key in raw if key not in CONSTANT_KEYS)
    source = _source(raw, path, reading)
    if source is None:
        return math.nan
    numbers = {key: number(raw[key]) for key in ("value", "low", "high") if key in raw}
    zero_allowed = path.rpartition(".")[2] in MAY_BE_ZERO
    for key, value in numbers.items():
        if math.isnan(value) or value < 0 or (value == 0 and not zero_allowed):
            problems.append(f"{path}.{key}: expected a positive number, not {raw[key]!r}")
        elif path.startswith(SLOWDOWNS) and value < 1:
            problems.append(f"{path}.{key}: expected 1 (undisturbed) or more, not {raw[key]!r}")
    reading.sources[path] = replace(source, low=numbers.get("low"), high=numbers.get("high"))
    return numbers["value"]


def _source(raw: dict[str, Any], path: str, reading: _Reading) -> Source | None:
    """None for a grade that is none (and has been noted)."""
    if raw["grade"] not in list(Grade):
        reading.problems.append(f"{path}.grade: {raw['grade']!r} is not one of {', '.join(Grade)}")
        return None
    if not isinstance(raw["source"], str) or not raw["source"].strip():
        reading.problems.append(f"{path}.source: expected text that says where the value comes from")
    return Source(str(raw["source"]), Grade(raw["grade"]))


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
