"""Whether two runs were made on the same testbed, and what differs between them if not, as short phrases.

What a run measures may differ, code and versions included: that is what a comparison is for. What it is measured with
may not: machine, backend, model, budget, workload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from results.query import Run
from results.schema import Label

MACHINE = ("cpu", "cores")
CONFIG = ("hardware", "model", "dtype", "budget", "emulation")
MEASURE = ("seed", "warmup_requests")
ABSENT = "nothing"


def differences(a: Run, b: Run) -> list[str]:
    """Empty when the two may be compared."""
    return list(_differences(a, b))


def _differences(a: Run, b: Run) -> Iterator[str]:
    labels = ["/".join(run.labels) for run in (a, b)]
    yield from _pair("label", *labels)
    yield from _pair("backend", a.manifest.backend, b.manifest.backend)
    if not a.labels == b.labels == (Label.SIMULATED,):  # what is computed does not depend on who computes it
        yield from _among(a.manifest.machine, b.manifest.machine, MACHINE)
        yield from _pair("gpu", _gpus(a.manifest.machine), _gpus(b.manifest.machine))
    config_a, config_b = a.manifest.config, b.manifest.config
    yield from _among(config_a, config_b, CONFIG)
    yield from _among(_mapping(config_a.get("measure")), _mapping(config_b.get("measure")), MEASURE)
    workloads_a, workloads_b = _workloads(config_a), _workloads(config_b)
    for name in workloads_a:
        if name in workloads_b:
            yield from _pair(f"workload {name}", workloads_a[name], workloads_b[name])


def _among(a: Mapping[str, object], b: Mapping[str, object], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        yield from _pair(key, a.get(key), b.get(key))


def _pair(key: str, a: object, b: object) -> Iterator[str]:
    """Of mappings, only the entries that differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in dict.fromkeys([*a, *b]):
            yield from _pair(f"{key}.{name}", a.get(name), b.get(name))
    elif a != b:
        yield f"{key} {_word(a)} against {_word(b)}"


def _gpus(machine: Mapping[str, object]) -> str:
    """By name: two of one kind differ in their drivers and in how much memory those keep, and are one kind still."""
    found = machine.get("gpus", machine.get("gpu"))
    entries = found if isinstance(found, list) else [found]
    return ", ".join(str(_mapping(entry).get("name", "none")) for entry in entries)


def _word(value: object) -> str:
    return ABSENT if value is None or value == "" else str(value)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _workloads(config: Mapping[str, object]) -> dict[str, object]:
    """By name, or by kind where a workload has no name of its own."""
    listed = config.get("workloads")
    entries = [_mapping(entry) for entry in listed] if isinstance(listed, list) else []
    return {str(entry.get("name", entry.get("kind", ""))): entry for entry in entries}
