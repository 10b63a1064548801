"""A night's figures in the formats of two dashboards: github-action-benchmark, and PyTorch's open-source benchmarks.

Only nights on which the machine was fit. Labels go with every figure, in the fields that are there for remarks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from harness.errors import ConfigError
from harness.tracking.loading import Tracked
from harness.tracking.series import Night
from results.history_rows import RunHead

JSON = dict[str, Any]
LARGEST_UINT32 = 2**32 - 1
LEVEL_NIGHTS = 10


def on_night(tracked: Sequence[Tracked], night: str | None) -> tuple[str, list[tuple[Tracked, Night]]]:
    """The night that is meant, the last one if none is named, and every figure that it gave."""
    nights = sorted({each.day for one in tracked for each in one.series.nights if each.fit})
    if not nights:
        raise ConfigError("the history has no night on which the machine was fit: nothing to export")
    wanted = night or nights[-1]
    found = [(one, each) for one in tracked for each in one.series.nights if each.day == wanted and each.fit]
    if not found:
        raise ConfigError(f"--night {wanted}: no figures of a fit machine; the last night with some is {nights[-1]}")
    return wanted, found


# --- github-action-benchmark ------------------------------------------------------------------------------------------


def github_benchmark(figures: Iterable[tuple[Tracked, Night]], *, higher_is_better: bool) -> list[JSON]:
    """Its list of name, unit, value, range and extra. The name is what it finds yesterday's value by.

    One file is of one kind: customBiggerIsBetter or customSmallerIsBetter.
    """
    return [_entry(one, night) for one, night in figures if one.series.higher_is_better is higher_is_better]


def _entry(one: Tracked, night: Night) -> JSON:
    facts = {
        "label": one.label,
        "night": night.day,
        "repeats": len(night.values),
        "testbed": one.key.testbed,
        "version": _version(one, night),
    }
    return {
        "name": f"{one.name} [{one.label}]",
        "unit": one.metric.unit,
        "value": median(night.values),
        "range": f"{min(night.values):g} to {max(night.values):g}",
        "extra": "\n".join(f"{key}: {value}" for key, value in facts.items()),
    }


# --- PyTorch's open-source benchmarks, version 3 ----------------------------------------------------------------------


def pytorch_benchmark(
    figures: Iterable[tuple[Tracked, Night]],
    setups: Mapping[str, Mapping[str, Any]],
    testbeds: Mapping[str, Mapping[str, Any]],
) -> list[JSON]:
    """One record per metric, with raw repeats. The target is the level of the nights before, where there are some."""
    return [_record(one, night, setups[one.key.setup], testbeds[one.key.testbed]) for one, night in figures]


def _record(one: Tracked, night: Night, asked: Mapping[str, Any], testbed: Mapping[str, Any]) -> JSON:
    level = _level_before(one, night)
    metric: JSON = {
        "name": one.metric_key,
        "benchmark_values": list(night.values),
        "extra_info": _texts(
            {"unit": one.metric.unit, "label": one.label, "higher_is_better": one.series.higher_is_better}
        ),
    }
    if level is not None:
        metric["target_value"] = level
    return {
        "benchmark": {
            "name": f"hybrid-harness {one.series.cell.experiment}",
            "mode": "inference",
            "dtype": str(asked.get("dtype", "")),
            "extra_info": _texts(
                {
                    "label": one.label,
                    "night": night.day,
                    "workload": one.key.workload,
                    "series": one.name,
                    "version": _version(one, night),
                }
            ),
        },
        "model": {
            "name": str(asked.get("model", "")),
            "type": "LLM serving",
            "backend": one.key.engine,
            "origins": ["hybrid-harness"],
        },
        "runners": [_runner(one.key.testbed, testbed)],
        "dependencies": _dependencies(one.runs.get(night.day, ())),
        "metric": metric,
    }


def _level_before(one: Tracked, night: Night) -> float | None:
    before = [median(each.values) for each in one.series.nights if each.fit and each.ordinal < night.ordinal]
    return median(before[-LEVEL_NIGHTS:]) if before else None


def _runner(digest: str, testbed: Mapping[str, Any]) -> JSON:
    """Of a simulation, the machine that is modelled: nothing else had a part in its figures."""
    gpus = testbed.get("gpus", [])
    return {
        "name": digest,
        "type": str(testbed.get("modelled") or testbed.get("backend", "")),
        "cpu_info": str(testbed.get("cpu", "")),
        "cpu_count": _count(testbed.get("cores")),
        "avail_mem_in_gb": _count(testbed.get("memory_gib")),
        "gpu_info": str(gpus[0].get("name", "")) if gpus else "",
        "gpu_count": len(gpus),
        "avail_gpu_mem_in_gb": sum(_count(gpu.get("memory_gib")) for gpu in gpus),
        "extra_info": _texts({key: value for key, value in testbed.items() if isinstance(value, str)}),
    }


def _dependencies(runs: Sequence[RunHead]) -> JSON:
    versions = runs[-1].environment.get("versions") if runs else None
    packages = versions if isinstance(versions, Mapping) else {}
    return {str(name): {"version": str(version)} for name, version in packages.items()}


def _version(one: Tracked, night: Night) -> str:
    return "; ".join(dict.fromkeys(str(run.version) for run in one.runs.get(night.day, ())))


def _texts(facts: Mapping[str, object]) -> dict[str, str]:
    """Remarks are a map from text to text there."""
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in facts.items()}


def _count(value: object) -> int:
    return min(max(int(value), 0), LARGEST_UINT32) if isinstance(value, int | float) else 0
