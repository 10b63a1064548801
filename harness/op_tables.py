"""Published tables of what linear ops took, as plain points. They lie beside the repository and are no part of it.

Not here: what is fitted to them (fitting.py), and a cost table of a whole model (vllm_op_costs.py).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines.model.config import load_config
from harness.errors import ConfigError

FOLDER_VARIABLE = "HARNESS_DATA"
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
OPS = ("qkv", "output", "up", "down")  # in the order of ModelConfig.matrices; gate and up are one product


@dataclass(frozen=True, slots=True)
class Point:
    """One product, or several of one layer in a row: so many rows through matrices of so many parameters."""

    op: str
    parameters: int
    tokens: int
    seconds: float
    products: int = 1


@dataclass(frozen=True, slots=True)
class LinearTable:
    """Of one machine of the catalogue."""

    machine: str
    model: str
    dtype: str
    points: tuple[Point, ...]  # tokens rising, then in the order of OPS
    between: tuple[tuple[int, float], ...]  # (tokens, seconds) of a layer's norms, rotary positions and activations


def data_folder() -> Path:
    """ConfigError in one line where it is absent."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or BESIDE)
    if not (folder / "op_profiles").is_dir():
        raise ConfigError(f"no measured op tables at {folder}: set {FOLDER_VARIABLE} to a folder that has op_profiles/")
    return folder


def linear_tables(folder: Path) -> list[LinearTable]:
    """All there are; in the order in which they are shown."""
    return [_table(folder / "op_profiles", source) for source in SOURCES]


def layer_points(points: Sequence[Point]) -> list[Point]:
    """The products of a layer together, one point for each count of tokens."""
    layers: dict[int, list[Point]] = {}
    for point in points:
        layers.setdefault(point.tokens, []).append(point)
    return [_together(tokens, layers[tokens]) for tokens in sorted(layers)]


def _together(tokens: int, points: Sequence[Point]) -> Point:
    parameters, products = sum(point.parameters for point in points), sum(point.products for point in points)
    return Point("layer", parameters, tokens, sum(point.seconds for point in points), products)


def halves(points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """Every second token count to learn from, the others to be asked about."""
    counts = sorted({point.tokens for point in points})
    learned = set(counts[::2])
    return (
        [point for point in points if point.tokens in learned],
        [point for point in points if point.tokens not in learned],
    )


# --- files -----------------------------------------------------------------------------------------------------------

Times = Mapping[str, Mapping[int, float]]  # seconds by column or layer, then by count


def wide_times(path: Path, count: str, scale: float) -> Times:
    """A column for each op, as Vidur's profiles were condensed."""
    rows = _rows(path)
    return {name: {int(row[count]): scale * float(row[name]) for row in rows} for name in rows[0] if name != count}


def long_times(path: Path, count: str, scale: float) -> Times:
    """A line for each op and count, as LLMServingSim's profiler writes them."""
    found: dict[str, dict[int, float]] = {}
    for row in _rows(path):
        found.setdefault(row["layer"], {})[int(row[count])] = scale * float(row["time_us"])
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not rows:
        raise ConfigError(f"{path}: holds no measurements")
    return rows


@dataclass(frozen=True, slots=True)
class Source:
    machine: str
    model: str
    dtype: str
    file: str
    read: Callable[[Path], Times]
    columns: tuple[str, str, str, str]  # of OPS
    between: tuple[str, ...]  # once for each time that a layer has it


_VIDUR = ("attn_pre_proj_ms", "attn_post_proj_ms", "mlp_up_proj_ms", "mlp_down_proj_ms")
_VIDUR_SMALL = ("input_layernorm_ms", "attn_rope_ms", "post_attention_layernorm_ms", "mlp_act_ms", "add_ms", "add_ms")
_VLLM = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
_VLLM_SMALL = ("layernorm", "rotary_emb", "layernorm", "act_fn")  # the norm adds the residual
_ms = partial(wide_times, count="num_tokens", scale=1e-3)
_us = partial(long_times, count="tokens", scale=1e-6)

SOURCES = (
    Source("a100", "llama-2-7b", "float16", "a100_llama2_7b_linear.csv", _ms, _VIDUR, _VIDUR_SMALL),
    Source("h100", "llama-2-7b", "float16", "h100_llama2_7b_linear.csv", _ms, _VIDUR, _VIDUR_SMALL),
    Source("rtx4090", "llama-3.1-8b", "bfloat16", "rtx4090_llama31_8b_dense.csv", _us, _VLLM, _VLLM_SMALL),
)


def _table(folder: Path, source: Source) -> LinearTable:
    times = source.read(folder / source.file)
    between = [(count, sum(times[op][count] for op in source.between)) for count in sorted(times[source.between[0]])]
    return LinearTable(source.machine, source.model, source.dtype, tuple(_points(source, times)), tuple(between))


def _points(source: Source, times: Times) -> Iterator[Point]:
    sizes = [inputs * outputs for inputs, outputs in load_config(source.model).matrices]
    for tokens in sorted(times[source.columns[0]]):
        for op, parameters, column in zip(OPS, sizes, source.columns, strict=True):
            yield Point(op, parameters, tokens, times[column][tokens])
