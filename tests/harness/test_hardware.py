"""The catalogue of machines: what is shipped is sound, and a user's own file is told all its mistakes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.hardware import (
    ByShape,
    ByTokens,
    Grade,
    HardwareError,
    Interference,
    Product,
    catalogue_names,
    load_hardware,
)
from harness.costs import machine_rates


def _shape() -> dict[str, Any]:
    return {"inputs": 4096, "outputs": 12288, "tokens": [1, 64], "ratios": ["1.25", 0.5]}


def _shapes() -> dict[str, Any]:
    return {"products": [_shape()], "source": "a table", "grade": "published"}


@pytest.mark.parametrize("name", catalogue_names())
def test_a_shipped_machine_is_plausible(name: str) -> None:
    machine = load_hardware(name)
    assert machine.name == name
    assert 8 * 2**30 < machine.gpu.memory_bytes < 200 * 2**30
    assert machine.gpu.flops["float16"] > machine.gpu.flops["float32"]
    assert 1 <= machine.gpu.gemm.exponent < 10
    assert machine.link.h2d_bytes_per_s < machine.gpu.bandwidth_bytes_per_s
    assert machine.cpu.read_bandwidth_bytes_per_s < machine.gpu.bandwidth_bytes_per_s
    for path, source in machine.sources.items():
        assert source.text, path
        low, high = source.low, source.high
        value = _at(machine, path)
        if isinstance(value, ByShape):
            assert all(0.3 < ratio < 3 for each in value.products for ratio in each.by_tokens.ratios), path
            continue
        assert low is None or high is None or low <= value <= high, path


def test_every_constant_has_a_source_and_an_honest_grade() -> None:
    machine = load_hardware("t4_g4dn_4xlarge")
    assert machine.sources["gpu.flops.float16"].grade is Grade.DATASHEET
    assert machine.sources["gpu.gemm.compute_efficiency"].grade is Grade.ASSUMED
    assert len(machine.sources) == 33
    assert "bfloat16" not in machine.gpu.flops


@pytest.mark.parametrize(
    ("name", "reported", "same"),
    [
        ("t4_g4dn_4xlarge", "Tesla T4", True),
        ("t4_g4dn_4xlarge", "NVIDIA T400", False),
        ("a10", "NVIDIA A10", True),
        ("a10", "NVIDIA A10G", False),
        ("a10", "NVIDIA A100-SXM4-80GB", False),
        ("rtx4090", "NVIDIA GeForce RTX 4090", True),
        ("rtx4090", "NVIDIA GeForce RTX 4090 Laptop GPU", False),
    ],
)
def test_gpu_names(name: str, reported: str, same: bool) -> None:
    assert load_hardware(name).has_gpu(reported) is same


A10G = {"a10g_g5_2xlarge", "a10g_g5_4xlarge", "a10g_g5_8xlarge", "a10g_g5_16xlarge", "survey_4xa10g"}


@pytest.mark.parametrize(
    ("reported", "entries"),
    [
        ("Tesla T4", {"t4_g4dn_4xlarge", "t4_n1_highmem_32"}),
        ("NVIDIA A10", {"a10"}),
        ("NVIDIA A10G", A10G),
        ("NVIDIA A100-SXM4-80GB", {"a100"}),
        ("NVIDIA A100-SXM4-40GB", set()),
        ("NVIDIA A100 80GB PCIe", set()),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", set()),
        ("NVIDIA A40", {"a40"}),
        ("NVIDIA A40-48Q", set()),
        ("NVIDIA RTX A4000", set()),
        ("NVIDIA L4", {"l4"}),
        ("NVIDIA L40", set()),
        ("NVIDIA L40S", set()),
        ("NVIDIA H100 80GB HBM3", {"h100"}),
        ("NVIDIA H100 PCIe", set()),
        ("NVIDIA H200", {"h200"}),
        ("NVIDIA H200 NVL", set()),
        ("NVIDIA GH200 480GB", set()),
        ("NVIDIA GeForce RTX 3090", {"rtx3090"}),
        ("NVIDIA GeForce RTX 3090 Ti", set()),
        ("NVIDIA GeForce RTX 4090", {"rtx4090"}),
    ],
)
def test_a_gpu_is_taken_for_no_other(reported: str, entries: set[str]) -> None:
    assert {name for name in catalogue_names() if load_hardware(name).has_gpu(reported)} == entries


def test_a10_and_a10g_are_kept_apart() -> None:
    """Same memory, but a prompt takes 1.6 to 1.8 times as long on an A10G, by sheet and by what is reached."""
    a10 = load_hardware("a10").gpu
    for name in A10G:
        gpu = load_hardware(name).gpu
        assert gpu.bandwidth_bytes_per_s == a10.bandwidth_bytes_per_s
        reached = [each.gemm.compute_efficiency * each.flops["float16"] for each in (a10, gpu)]
        assert 1.6 <= reached[0] / reached[1] <= 1.8
        assert 1.6 <= a10.flops["float16"] / gpu.flops["float16"] <= 1.8


def test_a_larger_g5_instance_has_more_of_the_same_host() -> None:
    hosts = [load_hardware(f"a10g_g5_{size}xlarge").cpu for size in (2, 4, 8, 16)]
    assert [host.cores for host in hosts] == [4, 8, 16, 32]
    assert [host.memory_bytes for host in hosts] == [gib * 2**30 for gib in (32, 64, 128, 256)]
    bandwidths = [host.read_bandwidth_bytes_per_s for host in hosts]
    assert bandwidths == sorted(bandwidths)
    assert bandwidths[0] < 50e9, "half a chiplet reads no more than a chiplet does"
    assert bandwidths[-1] < 204.8e9, "nor four chiplets more than the socket has"


@pytest.mark.parametrize("name", catalogue_names())
def test_what_units_cost_each_other_is_neutral_with_a_range(name: str) -> None:
    """Nobody has measured it on these machines: the entry says undisturbed, and the range goes into bands."""
    machine = load_hardware(name)
    assert machine.interference == Interference()
    for unit in ("host", "links", "accelerator"):
        source = machine.sources[f"interference.{unit}"]
        assert (source.grade, source.low) == (Grade.ASSUMED, 1.0)
        assert source.has_range


def test_a_machine_without_interference_is_undisturbed_and_none_is_helped(tmp_path: Path) -> None:
    values = _a10()
    factor = values["interference"]["host"]
    del values["interference"]
    assert load_hardware(str(_written(tmp_path, values))).interference == Interference()
    values["interference"] = {"host": factor | {"value": 0.9, "low": 0.8}}
    with pytest.raises(HardwareError) as caught:
        load_hardware(str(_written(tmp_path, values)))
    said = str(caught.value).splitlines()
    assert [line.partition(": interference.host.")[2] for line in said] == [
        "value: expected 1 (undisturbed) or more, not 0.9",
        "low: expected 1 (undisturbed) or more, not 0.8",
    ]


def test_a_machine_of_the_users_own(tmp_path: Path) -> None:
    values = _a10()
    values["name"] = "mine"
    values["gpu"]["bandwidth_bytes_per_s"]["value"] = "640e9"  # YAML 1.1 reads this as text
    machine = load_hardware(str(_written(tmp_path, values)))
    assert machine.name == "mine"
    assert machine.gpu.bandwidth_bytes_per_s == 640e9


def test_all_mistakes_of_a_file_are_told(tmp_path: Path) -> None:
    values = _a10()
    del values["link"]["latency_s"]
    values["link"]["latency"] = {"value": 1, "source": "x", "grade": "assumed"}
    values["gpu"]["memory_bytes"] = 5
    values["gpu"]["gemm"]["exponent"]["value"] = -1
    values["cpu"]["cores"]["grade"] = "guessed"
    values["cpu"]["memory_bytes"]["value"] = True
    values["gpu_name"] = "("
    with pytest.raises(HardwareError) as caught:
        load_hardware(str(_written(tmp_path, values)))
    lines = str(caught.value).splitlines()
    expected = [
        "gpu_name: not a regular expression",
        "gpu.memory_bytes: expected {value, source, grade}",
        "gpu.gemm.exponent.value: expected a positive number, not -1",
        "cpu.cores.grade: 'guessed' is not one of measured, published, datasheet, assumed",
        "cpu.memory_bytes.value: expected a positive number, not True",
        'link.latency: unknown key; did you mean "latency_s"?',
        "link.latency_s: missing",
    ]
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert words in line


def test_ratios_by_tokens_may_be_given(tmp_path: Path) -> None:
    values = _a10()
    assert load_hardware("a10").gpu.gemm.by_tokens is None
    assert machine_rates(load_hardware("a10"), "float16").gemm_by_tokens == ()
    values["gpu"]["gemm"]["by_tokens"] = _ratios()
    machine = load_hardware(str(_written(tmp_path, values)))
    assert machine.gpu.gemm.by_tokens == ByTokens((1, 64), (1.25, 0.5))
    assert machine.sources["gpu.gemm.by_tokens"].grade is Grade.PUBLISHED
    assert machine_rates(machine, "float16").gemm_by_tokens == ((1, 1.25), (64, 0.5))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ratios": [1.0]}, ": tokens and ratios are expected as lists of one length"),
        ({"tokens": [], "ratios": []}, ": tokens and ratios are expected as lists of one length"),
        ({"tokens": 5}, ": tokens and ratios are expected as lists of one length"),
        ({"tokens": [64, 64]}, ".tokens: expected whole numbers from 1, each above the one before, not [64, 64]"),
        ({"tokens": [0, 64]}, ".tokens: expected whole numbers from 1"),
        ({"tokens": [1, "many"]}, ".tokens: expected whole numbers from 1"),
        ({"ratios": [1.0, -0.5]}, ".ratios: expected positive numbers, not [1.0, -0.5]"),
        ({"grade": "guessed"}, ".grade: 'guessed' is not one of"),
        ({"source": ""}, ".source: expected text"),
        ({"low": 0.5}, ".low: unknown key"),
        (None, ": expected {tokens, ratios, source, grade}"),
    ],
)
def test_wrong_ratios_by_tokens(tmp_path: Path, wrong: dict[str, Any] | None, words: str) -> None:
    values = _a10()
    values["gpu"]["gemm"]["by_tokens"] = wrong and {**_ratios(), **wrong}
    with pytest.raises(HardwareError) as caught:
        load_hardware(str(_written(tmp_path, values)))
    (line,) = str(caught.value).splitlines()
    assert f"gpu.gemm.by_tokens{words}" in line


def test_ratios_by_shape_may_be_given(tmp_path: Path) -> None:
    values = _a10()
    values["gpu"]["gemm"] |= {"by_shape": _shapes(), "tile_rows": {"value": 64, "source": "x", "grade": "assumed"}}
    machine = load_hardware(str(_written(tmp_path, values)))
    assert machine.gpu.gemm.by_shape == ByShape((Product(4096, 12288, ByTokens((1, 64), (1.25, 0.5))),))
    assert machine.sources["gpu.gemm.by_shape"].grade is Grade.PUBLISHED
    rates = machine_rates(machine, "float16")
    assert rates.gemm_by_shape == (((4096, 12288), ((1, 1.25), (64, 0.5))),)
    assert rates.gemm_tile_rows == 64


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, ": expected {products, source, grade}"),
        ({"products": []}, ".products: expected a list of"),
        ({"products": [{"inputs": 1}]}, ".products[0]: expected {inputs, outputs, tokens, ratios}"),
        ({"grade": "guessed"}, ".grade: 'guessed' is not one of"),
        ({"low": 1}, ".low: unknown key"),
        ({"inputs": 0}, ".products[0].inputs: expected a whole number from 1, not 0"),
        ({"tokens": [64, 1]}, ".products[0].tokens: expected whole numbers"),
        ({"ratios": [1.0, 0]}, ".products[0].ratios: expected positive numbers"),
        ({"grad": 1}, ".products[0].grad: unknown key"),
        ({"products": [_shape(), _shape()]}, ".products: two of 4096 x 12288"),
    ],
)
def test_wrong_ratios_by_shape(tmp_path: Path, wrong: dict[str, Any] | None, words: str) -> None:
    values, table = _a10(), _shapes()
    for key, value in (wrong or {}).items():
        (table if key in ("products", "grade", "low") else table["products"][0])[key] = value
    values["gpu"]["gemm"]["by_shape"] = wrong and table
    with pytest.raises(HardwareError) as caught:
        load_hardware(str(_written(tmp_path, values)))
    assert f"gpu.gemm.by_shape{words}" in str(caught.value).splitlines()[0]


@pytest.mark.parametrize("text", ["", "- 1", "gpu: [", "name: x"])
def test_files_that_are_no_machine(tmp_path: Path, text: str) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    with pytest.raises(HardwareError, match=r"machine\.yaml"):
        load_hardware(str(path))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(HardwareError, match="UTF-8"):
        load_hardware(str(path))


def _a10() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(resources.files("engines.hardware").joinpath("a10.yaml").read_text())
    return values


def _ratios() -> dict[str, Any]:
    return {"tokens": [1, 64], "ratios": ["1.25", 0.5], "source": "a table", "grade": "published"}


def _written(tmp_path: Path, values: dict[str, Any]) -> Path:
    path = tmp_path / "machine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _at(machine: object, path: str) -> float | ByShape:
    for key in path.split("."):
        machine = machine[key] if isinstance(machine, dict) else getattr(machine, key)
    assert isinstance(machine, int | float | ByShape)
    return machine
