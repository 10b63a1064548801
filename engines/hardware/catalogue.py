"""Reads a machine from YAML: every constant is {value, source, grade}, and all mistakes of a file are reported at once.

Not here: what the numbers mean (machine.py), or what they predict (engines.core.cost).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from engines.hardware.machine import Grade, Hardware, Source
from engines.suggest import did_you_mean

MAY_BE_ZERO = frozenset({"fixed_s", "op_fixed_s", "latency_s", "host_overhead_per_step_s"})
TEXT_KEYS = ("name", "description", "gpu_name")
CONSTANT_KEYS = frozenset({"value", "source", "grade", "low", "high"})


class HardwareError(ValueError):
    """A machine file that cannot be used; one line per mistake."""


def catalogue_names() -> list[str]:
    folder = resources.files("engines.hardware")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_hardware(name_or_path: str) -> Hardware:
    """A machine of the catalogue, or one that a user wrote."""
    text = _read(name_or_path)
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
    """The values for the fields of a dataclass, sections within sections."""
    hints = {name: hint for name, hint in get_type_hints(cls).items() if name != "sources"}
    if not isinstance(raw, dict):
        reading.problems.append(f"{path}: expected a section with {', '.join(hints)}")
        return {}
    for key in raw:
        if key not in hints:
            reading.problems.append(f"{_join(path, key)}: unknown key; {did_you_mean(str(key), hints)}")
    values = {}
    for name, hint in hints.items():
        where = _join(path, name)
        if name not in raw:
            reading.problems.append(f"{where}: missing")
        else:
            values[name] = _value(hint, raw[name], where, reading)
    return values


def _value(hint: Any, raw: object, path: str, reading: _Reading) -> Any:
    if path in TEXT_KEYS:
        return _text(raw, path, reading)
    if isinstance(hint, type) and is_dataclass(hint):
        known = len(reading.problems)
        values = _section(hint, raw, path, reading)
        complete = len(reading.problems) == known and len(values) == len(fields(hint))
        return hint(**values) if complete else None
    if hint in (int, float):
        number = _constant(raw, path, reading)
        return round(number) if hint is int and math.isfinite(number) else number
    return _numbers_by_dtype(raw, path, reading)


def _numbers_by_dtype(raw: object, path: str, reading: _Reading) -> Mapping[str, float]:
    if not isinstance(raw, dict) or not raw:
        reading.problems.append(f"{path}: expected one constant per dtype, such as float16:")
        return {}
    return {str(dtype): _constant(constant, _join(path, dtype), reading) for dtype, constant in raw.items()}


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
    if raw["grade"] not in list(Grade):
        problems.append(f"{path}.grade: {raw['grade']!r} is not one of {', '.join(Grade)}")
        return math.nan
    if not isinstance(raw["source"], str) or not raw["source"].strip():
        problems.append(f"{path}.source: expected text that says where the value comes from")
    numbers = {key: _number(raw[key]) for key in ("value", "low", "high") if key in raw}
    zero_allowed = path.rpartition(".")[2] in MAY_BE_ZERO
    for key, number in numbers.items():
        if math.isnan(number) or number < 0 or (number == 0 and not zero_allowed):
            problems.append(f"{path}.{key}: expected a positive number, not {raw[key]!r}")
    reading.sources[path] = Source(str(raw["source"]), Grade(raw["grade"]), numbers.get("low"), numbers.get("high"))
    return numbers["value"]


def _number(raw: object) -> float:
    """YAML 1.1 reads 320e9 as text, so text that is a number counts as one; NaN for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return math.nan
    try:
        number = float(raw)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
