"""What FlexGen's equations take from a machine, read from YAML: a shipped fit by its name, or a file of your own."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

import yaml

GIGABYTE, TERAFLOP = 2**30, 1e12
NAMES = ("name", "source")


class ConstantsError(ValueError):
    """A file of constants that cannot be used; one line per mistake."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Rates of the links between GPU, CPU and disk, and of arithmetic; c1 to c3 fit the CPU's small batches."""

    name: str
    source: str
    gpu_from_cpu_gb_per_s: float
    cpu_from_gpu_cache_gb_per_s: float
    cpu_from_gpu_hidden_gb_per_s: float
    cpu_from_disk_gb_per_s: float
    disk_from_cpu_cache_gb_per_s: float
    disk_from_cpu_hidden_gb_per_s: float
    disk_from_cpu_decode_gb_per_s: float
    matmul_prefill_tflops: float
    attention_prefill_tflops: float
    matmul_decode_tflops: float
    attention_decode_tflops: float
    cpu_tflops: float
    cpu_c1: float
    cpu_c2: float
    cpu_c3: float


def shipped_constants() -> list[str]:
    folder = resources.files("engines.lp_balanced")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_constants(name_or_path: str) -> Constants:
    raw = _parsed(name_or_path)
    known = [each.name for each in fields(Constants)]
    problems = [f"{key}: unknown; it takes {', '.join(known)}" for key in raw if key not in known]
    problems += [f"{key}: missing" for key in known if key not in raw]
    problems += [
        f"{key}: expected a number above zero, not {raw[key]!r}"
        for key in known
        if key in raw and key not in NAMES and not _is_rate(raw[key])
    ]
    if problems:
        raise ConstantsError("\n".join(f"constants {name_or_path}: {problem}" for problem in problems))
    return Constants(**{key: str(raw[key]) if key in NAMES else float(raw[key]) for key in known})  # type: ignore[arg-type]


def _parsed(name_or_path: str) -> dict[str, object]:
    try:
        if name_or_path in shipped_constants():
            text = resources.files("engines.lp_balanced").joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
        else:
            text = Path(name_or_path).read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError):
        shipped = ", ".join(shipped_constants())
        raise ConstantsError(f"constants {name_or_path}: no such file, and not shipped ({shipped})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConstantsError(f"constants {name_or_path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConstantsError(f"constants {name_or_path}: expected keys and values, such as cpu_tflops: 0.0123")
    return raw


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
