"""What a crossover map asks: output length x KV budget x CPU bandwidth, as cells that can be simulated.

What the engines answer, and who wins where, is crossover.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from engines.hardware import Hardware, Source, load_hardware
from harness.catalogue_entry import write_entry
from harness.config import load_experiment
from harness.errors import ConfigError
from harness.experiment import Experiment
from harness.plan import CellSpec, expand
from harness.sizing import Sizing, size
from workloads import build as build_workload

BASELINE = "gpu_only"
BANDWIDTH = "cpu.read_bandwidth_bytes_per_s"
JITTER = 0.1  # as the shipped experiments have it: requests of one length would all come and go together
EXPERIMENT_FILE = "map.yaml"


@dataclass(frozen=True, slots=True)
class Grid:
    """`engines` as an experiment lists them: names, or mappings with kind."""

    hardware: str
    model: str
    dtype: str
    prompt_tokens: int
    output_tokens: tuple[int, ...]
    kv_tokens: tuple[int, ...]
    cpu_factors: tuple[float, ...]  # times the read bandwidth that the catalogue has
    engines: tuple[Any, ...]
    requests: int


@dataclass(frozen=True, slots=True)
class Place:
    """One field of the map."""

    output_tokens: int
    kv_tokens: int
    cpu_factor: float
    requests_cut: int = 0  # because prompt and output together are more than the KV budget holds
    beyond_memory: bool = False  # more KV than the accelerator has room for beside the weights


@dataclass(frozen=True, slots=True)
class Asked:
    """`cells`: those of a place are its engines, the baseline first."""

    cells: tuple[tuple[Place, CellSpec], ...]
    machine: Hardware
    holds_kv_tokens: int  # on this machine, beside the weights


def numbers(option: str, text: str) -> tuple[float, ...]:
    """ "0.5,1,2": each positive and there once."""
    words = [word.strip() for word in text.split(",")]
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        found = ()
    if not found or not all(0 < number < float("inf") for number in found):
        raise ConfigError(f"{option} {text}: expected positive numbers with commas between them, such as 0.5,1,2")
    if len(set(found)) < len(found):
        raise ConfigError(f"{option} {text}: the same number is there twice")
    return found


def counts(option: str, text: str) -> tuple[int, ...]:
    found = numbers(option, text)
    if not all(number.is_integer() for number in found):
        raise ConfigError(f"{option} {text}: expected whole numbers with commas between them, such as 100,200")
    return tuple(int(number) for number in found)


def engine_choices(text: str) -> tuple[Any, ...]:
    """ "gpu_only,apex" or, in YAML, an engine with its options; the baseline comes first, given or not."""
    try:
        listed = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        raise ConfigError(
            f"--engines {text}: expected names with commas between them; "
            "one with options as {kind: gpu_only, name: packed, weight_bits: 4}"
        ) from None
    others = [choice for choice in listed if choice != BASELINE]
    return (BASELINE, *others)


def scaled_cpu(machine: Hardware, factor: float) -> Hardware:
    """The same machine whose host reads its memory so many times as fast, its range scaled with it."""
    rate = machine.cpu.read_bandwidth_bytes_per_s * factor
    source = _scaled_source(machine.sources[BANDWIDTH], factor)
    cpu = replace(machine.cpu, read_bandwidth_bytes_per_s=rate)
    return replace(machine, cpu=cpu, sources={**machine.sources, BANDWIDTH: source})


def _scaled_source(source: Source, factor: float) -> Source:
    low, high = (None if end is None else end * factor for end in (source.low, source.high))
    return replace(source, text=f"{factor:g} times, for a map over it: {source.text}", low=low, high=high)


def asked(grid: Grid, folder: Path) -> Asked:
    """Machines are written to the folder, which has to stay until the cells have been simulated."""
    machine = load_hardware(grid.hardware)
    room = _room(grid, folder, machine)
    cells = [
        found
        for factor in grid.cpu_factors
        for found in _panel(grid, folder, _machine_file(grid.hardware, machine, factor, folder), factor, room)
    ]
    return Asked(tuple(cells), machine, room.accel_kv_tokens)


def _machine_file(hardware: str, machine: Hardware, factor: float, folder: Path) -> str:
    if factor == 1:
        return hardware
    path = folder / f"cpu_{factor!r}.yaml"
    write_entry(path, scaled_cpu(machine, factor), f"{machine.name} with {factor:g} times its CPU bandwidth")
    return str(path)


def _panel(grid: Grid, folder: Path, hardware: str, factor: float, room: Sizing) -> Iterator[tuple[Place, CellSpec]]:
    for kv_tokens in grid.kv_tokens:
        experiment = _experiment(grid, folder, hardware, _budget(room, kv_tokens))
        for cell in expand(experiment, "sim"):
            place = Place(
                output_tokens=int(cell.workload.options["output"]),
                kv_tokens=kv_tokens,
                cpu_factor=factor,
                requests_cut=_requests_cut(cell),
                beyond_memory=kv_tokens > room.accel_kv_tokens,
            )
            yield place, cell


def _room(grid: Grid, folder: Path, machine: Hardware) -> Sizing:
    """What the accelerator holds if everything else stays away from it; ConfigError when not even the weights."""
    experiment = _experiment(grid, folder, grid.hardware, {"accel_memory": machine.gpu.memory_bytes})
    return size(expand(experiment, "sim")[0])


def _budget(room: Sizing, kv_tokens: int) -> dict[str, Any]:
    """Memory for exactly that much KV: a map may look beyond the card, and engines that place weights get no more."""
    kv_bytes = room.kv_bytes_per_token * kv_tokens
    return {"accel_memory": room.weight_bytes + room.workspace_bytes + kv_bytes, "accel_kv_tokens": kv_tokens}


def _experiment(grid: Grid, folder: Path, hardware: str, budget: Mapping[str, Any]) -> Experiment:
    """Read as any other, so that what is wrong with a name is said as everywhere; nothing outside changes a map."""
    lengths = {"prompt": grid.prompt_tokens, "output": list(grid.output_tokens)}
    values = {
        "schema_version": 1,
        "name": "map",
        "backend": "sim",
        "hardware": hardware,
        "model": grid.model,
        "dtype": grid.dtype,
        "budget": dict(budget),
        "engines": list(grid.engines),
        "workloads": [{"kind": "long_output", **lengths, "jitter": JITTER, "requests": grid.requests}],
    }
    path = folder / EXPERIMENT_FILE
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        return load_experiment(str(path), environment={})
    except ConfigError as error:
        raise ConfigError(_without_file(error.problems)) from None


def _without_file(problems: Sequence[str]) -> list[str]:
    """The user wrote options and not this file."""
    return [re.sub(rf"^{re.escape(EXPERIMENT_FILE)}(:\d+)?: ", "", problem) for problem in problems]


def _requests_cut(cell: CellSpec) -> int:
    limit = cell.max_request_tokens
    if limit is None:
        return 0
    requests = build_workload(cell.workload.options, cell.measure.seed).requests
    return sum(request.prompt_tokens + request.output_tokens > limit for request in requests)
