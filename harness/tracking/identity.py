"""What makes figures of two nights comparable: the testbed they were made on, and the setup that was asked for.

Code and its version are in neither: they are what is tracked. Digests are of plain JSON, so that they are the same on
every machine that reads a run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache

from harness.errors import ConfigError
from harness.experiment import Budget, Emulation, Measure
from results.history_rows import Setup, Testbed
from results.schema import CellSummary, Label, Manifest
from workloads import WorkloadError, expand

DIGEST_LENGTH = 12
GIB = 1024**3

# Not what a cell is, but what it is called, how often and how patiently it is run, and what is said beside its figures.
INDIFFERENT = ("schema_version", "name", "out", "engines", "workloads")
INDIFFERENT_MEASURE = ("repeats", "order", "time_limit_s", "draws")


def digest(document: object) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


# --- the testbed ------------------------------------------------------------------------------------------------------


def testbed(manifest: Manifest, label: Label) -> Testbed:
    """Of a simulation, what is modelled: who computes it is of no consequence. Else the machine, too."""
    facts: dict[str, object] = {"label": str(label), "backend": manifest.backend}
    if label is not Label.MEASURED:
        facts["modelled"] = str(manifest.config.get("hardware") or manifest.config.get("profile") or "")
    if label is not Label.SIMULATED:
        facts |= _machine(manifest.machine)
    return Testbed(digest(facts), facts)


def _machine(machine: Mapping[str, object]) -> dict[str, object]:
    gpus = _gpus(machine)
    return {
        "cpu": str(machine.get("cpu", "")),
        "cores": machine.get("cores"),
        "memory_gib": _gib(machine.get("memory_bytes")),
        "kernel": _major(str(machine.get("kernel", ""))),
        "architecture": str(machine.get("architecture", "")),
        "gpus": [{"name": str(gpu.get("name", "")), "memory_gib": _gib(gpu.get("memory_bytes"))} for gpu in gpus],
        "driver": _major(str(gpus[0].get("driver", ""))) if gpus else "",
    }


def _gpus(machine: Mapping[str, object]) -> list[Mapping[str, object]]:
    """None where the manifest says in words why there is none."""
    found = machine.get("gpus", machine.get("gpu"))
    entries = found if isinstance(found, list) else [found]
    return [entry for entry in entries if isinstance(entry, Mapping)]


def _gib(size_bytes: object) -> int | None:
    """In whole GiB: how much of its memory a machine keeps to itself changes with every kernel."""
    return round(size_bytes / GIB) if isinstance(size_bytes, int | float) else None


def _major(version: str) -> str:
    """`Linux 6` of `Linux 6.18.44`: a patch is no new machine."""
    return re.sub(r"(\d+)[^ ]*", r"\1", version)


# --- the setup --------------------------------------------------------------------------------------------------------


def setup(manifest: Manifest, cell: CellSummary, clip_tokens: int | None) -> Setup:
    """Of one engine on one workload: that others are run beside them does not change what they are.

    `clip_tokens`: the longest request, where others' capacity made the workload's requests shorter.
    """
    config = manifest.config
    measure = config.get("measure")
    if isinstance(measure, Mapping):
        config = {**config, "measure": {key: measure[key] for key in measure if key not in INDIFFERENT_MEASURE}}
    asked = _told({key: value for key, value in config.items() if key not in INDIFFERENT}, _defaults())
    asked["engine"] = _engine(config.get("engines"), cell.engine)
    asked["workload"] = _workload(config.get("workloads"), cell.workload)
    if clip_tokens is not None:
        asked["clip_tokens"] = clip_tokens
    return Setup(digest(asked), asked)


def _told(config: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """What differs from its default: a key that a newer harness adds would begin every series anew otherwise."""
    told = {}
    for key, value in config.items():
        default = defaults.get(key)
        if isinstance(value, Mapping):
            value = _told(value, default if isinstance(default, Mapping) else {})
        if value not in (default, {}, None):
            told[key] = value
    return told


@cache
def _defaults() -> Mapping[str, object]:
    """Of an experiment's sections."""
    sections = {"budget": Budget(), "emulation": Emulation(), "measure": Measure()}
    return {"backend": "auto", **{name: section.model_dump(mode="json") for name, section in sections.items()}}


def clips(cells: Iterable[CellSummary]) -> dict[str, int]:
    """By workload, the limit to which its requests were really cut: the same for all engines of a run."""
    found = {}
    for cell in cells:
        clipped = cell.resolved.get("clipped")
        if isinstance(clipped, Mapping) and clipped.get("clipped_requests"):
            found[cell.workload] = int(clipped["limit_tokens"])
    return found


def _engine(engines: object, name: str) -> object:
    """The entry as it was resolved; the bare name where it is not told."""
    for entry in _entries(engines):
        if entry.get("name", entry.get("kind")) == name:
            return {**entry, "name": name}
    return name


def _workload(workloads: object, name: str) -> object:
    """The point of a sweep, or the entry, that has this name; all of them where there is none."""
    for entry in _entries(workloads):
        for point in (*_points(entry), entry):
            if point.get("name", point.get("kind")) == name:
                return {**point, "name": name}
    return workloads if workloads is not None else name


def _points(entry: Mapping[str, object]) -> list[dict[str, object]]:
    """None of a workload that this harness does not know: runs may come from others."""
    try:
        return [dict(point) for point in expand(dict(entry))]
    except (WorkloadError, ConfigError, TypeError, KeyError):
        return []


def _entries(listed: object) -> list[Mapping[str, object]]:
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
