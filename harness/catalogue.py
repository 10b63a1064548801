"""What `harness list` shows: what an experiment can name, one row each. Imports nothing heavy into this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

from harness.sizes import format_bytes


class Topic(StrEnum):
    ENGINES = "engines"
    WORKLOADS = "workloads"
    HARDWARE = "hardware"
    MODELS = "models"
    METRICS = "metrics"
    CONFIGS = "configs"


@dataclass(frozen=True, slots=True)
class Listing:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_json(self) -> list[dict[str, str]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def listing(topic: Topic) -> Listing:
    columns, rows = _TOPICS[topic]
    return Listing(columns, list(rows()))


def _engines() -> Iterator[tuple[str, ...]]:
    from harness.engines_here import engines_here

    for engine in engines_here():
        yield engine.kind, engine.origin, engine.form, engine.state, engine.summary


def _workloads() -> Iterator[tuple[str, ...]]:
    from workloads import KINDS

    for kind, entry in KINDS.items():
        yield kind, ", ".join(entry.defaults), entry.description


def _hardware() -> Iterator[tuple[str, ...]]:
    from engines.hardware import catalogue_names, load_hardware

    for name in catalogue_names():
        machine = load_hardware(name)
        bandwidth = f"{machine.gpu.bandwidth_bytes_per_s / 1e9:.0f} GB/s"
        yield name, format_bytes(machine.gpu.memory_bytes), bandwidth, str(machine.cpu.cores), machine.description


def _models() -> Iterator[tuple[str, ...]]:
    from engines.model.config import list_shapes, load_config

    for name in list_shapes():
        shape = load_config(name)
        heads = f"{shape.query_heads}/{shape.kv_heads}"
        kv_bytes = shape.layers * shape.kv_bytes_per_token_per_layer(dtype_bytes=2)
        yield name, f"{shape.parameters / 1e6:,.1f} M", str(shape.layers), heads, format_bytes(kv_bytes)


def _metrics() -> Iterator[tuple[str, ...]]:
    from harness.metric_catalogue import CATALOGUE

    for metric in CATALOGUE:
        yield metric.key, metric.unit, metric.formula, metric.meaning


def _configs() -> Iterator[tuple[str, ...]]:
    import yaml

    from harness.config import config_names

    for name in config_names():
        text = resources.files("harness.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        values: Mapping[str, Any] = yaml.safe_load(text)
        engines = ", ".join(entry if isinstance(entry, str) else entry["kind"] for entry in values["engines"])
        backend, hardware = str(values.get("backend", "auto")), str(values.get("hardware", ""))
        yield name, backend, str(values["model"]), hardware, engines


_TOPICS: Mapping[Topic, tuple[tuple[str, ...], Callable[[], Iterator[tuple[str, ...]]]]] = {
    Topic.ENGINES: (("engine", "from", "kind", "state", "what it does"), _engines),
    Topic.WORKLOADS: (("kind", "options", "what it is"), _workloads),
    Topic.HARDWARE: (("name", "GPU memory", "bandwidth", "CPU cores", "description"), _hardware),
    Topic.MODELS: (("shape", "parameters", "layers", "heads/KV", "KV per token at 16 bit"), _models),
    Topic.METRICS: (("metric", "unit", "formula", "meaning"), _metrics),
    Topic.CONFIGS: (("config", "backend", "model", "hardware", "engines"), _configs),
}
