"""What others' dashboards are given, held against their formats as they publish them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.tracking.conftest import RATE, Call, Make, added, day, figures

# github-action-benchmark, the list that its two custom tools read (README, "Use custom benchmarks"):
# required and optional keys of an entry.
GITHUB_REQUIRED = {"name": str, "unit": str, "value": float}
GITHUB_OPTIONAL = {"range": str, "extra": str}

# PyTorch's oss_ci_benchmark_v3: tuples are objects with no other keys than these, Array and Map as lists and objects.
TEXTS = "Map(String, String)"
PYTORCH: dict[str, Any] = {
    "benchmark": {"name": "String", "mode": "String", "dtype": "String", "extra_info": TEXTS},
    "model": {"name": "String", "type": "String", "backend": "String", "origins": "Array(String)", "extra_info": TEXTS},
    "metric": {
        "name": "String",
        "benchmark_values": "Array(Float)",
        "target_value": "Float",
        "extra_info": TEXTS,
    },
    "runner": {
        "name": "String",
        "type": "String",
        "cpu_info": "String",
        "cpu_count": "UInt32",
        "mem_info": "String",
        "avail_mem_in_gb": "UInt32",
        "gpu_info": "String",
        "gpu_count": "UInt32",
        "gpu_mem_info": "String",
        "avail_gpu_mem_in_gb": "UInt32",
        "extra_info": TEXTS,
    },
    "dependency": {"repo": "String", "branch": "String", "sha": "String", "version": "String", "extra_info": TEXTS},
}
PYTORCH_REQUIRED = {"benchmark": {"name"}, "model": {"name"}, "metric": {"name", "benchmark_values"}}


def is_a(value: object, kind: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "String":
            return isinstance(value, str)
        case "UInt32":
            return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32
        case "Float":
            return number
        case "Array(String)":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        case "Array(Float)":
            return isinstance(value, list) and bool(value) and all(is_a(each, "Float") for each in value)
    assert kind == TEXTS
    return isinstance(value, dict) and all(isinstance(each, str) for pair in value.items() for each in pair)


def faults(found: Mapping[str, object], part: str) -> list[str]:
    kinds = PYTORCH[part]
    wrong = [
        f"{part}.{key}: {value!r}" for key, value in found.items() if key not in kinds or not is_a(value, kinds[key])
    ]
    return wrong + [f"{part}.{key} is missing" for key in PYTORCH_REQUIRED.get(part, set()) - found.keys()]


def record_faults(record: Mapping[str, Any]) -> list[str]:
    strange = [
        key for key in record if key not in ("benchmark", "model", "metric", "runners", "dependencies", "inputs")
    ]
    parts = [fault for part in ("benchmark", "model", "metric") for fault in faults(record[part], part)]
    runners = [fault for runner in record.get("runners", []) for fault in faults(runner, "runner")]
    needed = [fault for each in record.get("dependencies", {}).values() for fault in faults(each, "dependency")]
    return [*strange, *parts, *runners, *needed]


@pytest.fixture
def runs(night: Make, db: Path) -> list[Path]:
    made = [night(number) for number in range(3)]
    added(db, made)
    return made


def test_the_check_itself_notices() -> None:
    good: dict[str, Any] = {
        "benchmark": {"name": "b", "extra_info": {"a": "b"}},
        "model": {"name": "m", "origins": []},
        "metric": {"name": "m", "benchmark_values": [1.0]},
    }
    assert record_faults(good) == []
    for part, key, value in (
        ("metric", "benchmark_values", 1.0),
        ("metric", "benchmark_values", ["1"]),
        ("metric", "target_value", "1"),
        ("benchmark", "extra_info", {"a": 1}),
        ("model", "origins", "here"),
        ("model", "size", "7b"),
    ):
        assert record_faults(good | {part: good[part] | {key: value}})
    assert record_faults(good | {"metric": {"name": "m"}})


@pytest.mark.parametrize(
    ("tool", "metrics"), [("customBiggerIsBetter", {RATE}), ("customSmallerIsBetter", {"ttft_s_mean", "tpot_s_mean"})]
)
def test_github_benchmark(call: Call, runs: list[Path], db: Path, tool: str, metrics: set[str]) -> None:
    found = call("track", "export", "--format", "github-benchmark", "--tool", tool, "--db", db)
    assert found.code == 0
    entries = json.loads(found.out)
    assert len(entries) == 2 * len(metrics)
    assert len({entry["name"] for entry in entries}) == len(entries)
    for entry in entries:
        assert GITHUB_REQUIRED.keys() <= entry.keys() <= GITHUB_REQUIRED.keys() | GITHUB_OPTIONAL.keys()
        assert all(isinstance(entry[key], kind) for key, kind in {**GITHUB_REQUIRED, **GITHUB_OPTIONAL}.items())
        assert entry["name"].endswith("[simulated]")
        assert entry["name"].split("/")[2].split("@")[0] in metrics
        assert f"night: {day(2)}" in entry["extra"]
        assert "label: simulated" in entry["extra"]


def test_github_benchmark_tells_the_nights_own_figures(call: Call, runs: list[Path], db: Path) -> None:
    words = ["--format", "github-benchmark", "--db", db, "--night", day(1)]
    (entry,) = [
        each for each in json.loads(call("track", "export", *words).out) if each["name"].startswith("gpu_only/")
    ]
    values = figures(runs[1], RATE, "gpu_only")
    assert entry["value"] == median(values)
    assert entry["unit"] == "tokens/s"
    assert entry["range"] == f"{min(values):g} to {max(values):g}"


def test_names_are_the_same_every_night(call: Call, runs: list[Path], db: Path) -> None:
    words = ["--format", "github-benchmark", "--db", db, "--night"]
    names = [
        {each["name"] for each in json.loads(call("track", "export", *words, day(number)).out)} for number in (0, 2)
    ]
    assert names[0] == names[1]


def test_pytorch_benchmark(call: Call, runs: list[Path], db: Path, tmp_path: Path) -> None:
    out = tmp_path / "records.json"
    assert call("track", "export", "--format", "pytorch-benchmark", "--db", db, "--out", out).code == 0
    records = json.loads(out.read_text())
    assert len(records) == 6
    assert [fault for record in records for fault in record_faults(record)] == []
    (rate,) = [each for each in records if each["metric"]["name"] == RATE and each["model"]["backend"] == "gpu_only"]
    assert rate["metric"]["benchmark_values"] == figures(runs[2], RATE, "gpu_only")
    before = [median(figures(run, RATE, "gpu_only")) for run in runs[:2]]
    assert rate["metric"]["target_value"] == median(before)
    assert rate["benchmark"]["dtype"] == "float16"
    assert rate["benchmark"]["extra_info"]["label"] == "simulated"
    assert rate["model"]["name"] == "tiny-1m"
    assert rate["runners"][0]["type"] == "t4_g4dn_4xlarge"


def test_the_first_night_has_no_target(call: Call, runs: list[Path], db: Path) -> None:
    found = call("track", "export", "--format", "pytorch-benchmark", "--db", db, "--night", day(0))
    assert all("target_value" not in record["metric"] for record in json.loads(found.out))


def test_nights_that_are_not_there(call: Call, runs: list[Path], db: Path) -> None:
    found = call("track", "export", "--format", "github-benchmark", "--db", db, "--night", "2001-01-01")
    assert (found.code, len(found.errors)) == (2, 1)
    assert f"the last night with some is {day(2)}" in found.errors[0]


def test_a_night_of_an_unfit_machine_is_not_given_away(call: Call, night: Make, db: Path) -> None:
    told = {"machine": {"load_warning": "busy"}, "backend": "cpu"}
    call("track", "add", night(0, manifest=told), "--db", db)
    found = call("track", "export", "--format", "github-benchmark", "--db", db)
    assert (found.code, len(found.errors)) == (2, 1)
    assert "no night on which the machine was fit" in found.errors[0]


def test_metrics_of_the_other_kind_only(call: Call, runs: list[Path], db: Path) -> None:
    found = call("track", "export", "--format", "github-benchmark", "--db", db, "--metric", "ttft_s_mean")
    assert (found.code, len(found.errors)) == (2, 1)
    assert "--tool customBiggerIsBetter" in found.errors[0]
