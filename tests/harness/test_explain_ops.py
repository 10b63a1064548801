"""`harness explain ops`: the simulator's own op times, and the constant that decides each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.core.roofline import Roofline
from engines.hardware import load_hardware
from engines.model.config import load_config
from harness.costs import machine_rates, model_costs
from harness.errors import ConfigError
from harness.explain_ops import OPS, Ops, constants_listing, explained_ops, ops_listing, parsed_tokens

from .conftest import Call

T4 = ("explain", "ops", "--hardware", "t4_g4dn_4xlarge", "--model", "llama-2-7b")


def explained(*tokens: int, **wanted: Any) -> Ops:
    usual: dict[str, Any] = {"hardware": "t4_g4dn_4xlarge", "model": "llama-2-7b", "context": 1000, "batch": None}
    return explained_ops(tokens=tokens, **{"dtype": "float16"} | usual | wanted)


def governors(found: Ops, op: str) -> list[str]:
    return [row.governed_by[op].constant for row in found.rows]


def test_values_are_those_of_the_formula_by_hand() -> None:
    """A T4 with Llama-2-7B in float16: 4 h^2 + 3 h f parameters a layer, 16 KiB of KV a token."""
    (row,) = explained(16).rows
    parameters = 4 * 4096 * 4096 + 3 * 4096 * 11008
    memory_s, compute_s = 2 * parameters / (0.80 * 320e9), 2 * parameters * 16 / (0.46 * 65e12)
    products_s = (memory_s**1.8 + compute_s**1.8) ** (1 / 1.8) + 4 * 7e-6
    small_bytes = 16 * 2 * (2 * 4 * 4096 + (4096 + 3 * 4096) + 3 * 11008)  # norms; queries and keys; activation
    assert row.linear_s == pytest.approx(products_s + 4 * 3e-6 + small_bytes / (0.80 * 320e9))
    kv_bytes = 16 * 1000 * 2 * 4096 * 2
    assert row.accel_attention_s == pytest.approx(10e-6 + kv_bytes / (0.80 * 320e9))
    assert row.host_attention_s == pytest.approx(20e-6 + kv_bytes / (0.71 * 70e9))
    assert row.h2d_s == pytest.approx(10e-6 + 16 * 4096 * 2 / 12.9e9)
    assert row.d2h_s == pytest.approx(10e-6 + 16 * 3 * 4096 * 2 / 12.9e9)


def test_they_are_what_a_simulation_runs_by() -> None:
    costs = Roofline(
        model_costs(load_config("llama-3.1-8b"), "bfloat16"), machine_rates(load_hardware("rtx4090"), "bfloat16")
    )
    found = explained(1, 100, 1000, hardware="rtx4090", model="llama-3.1-8b", dtype="bfloat16")
    assert [row.linear_s for row in found.rows] == [costs.linear_s(tokens) for tokens in (1, 100, 1000)]


def test_bandwidth_gives_way_to_compute_as_tokens_grow() -> None:
    found = explained(1, 64, 4096)
    assert governors(found, "linear_s") == [
        "gpu.gemm.bandwidth_efficiency",
        "gpu.gemm.bandwidth_efficiency",
        "gpu.gemm.compute_efficiency",
    ]
    # 2 n / (e_c F) passes 2 bytes / (e_b B) at n = e_c F / (e_b B) = 29.9e12 / 256e9
    assert [row.governed_by["linear_s"].term for row in explained(116, 117).rows] == ["bandwidth", "compute"]


def test_what_is_fixed_decides_where_little_is_moved() -> None:
    found = explained(1, 4096, context=1)
    assert governors(found, "h2d_s") == ["link.latency_s", "link.h2d_bytes_per_s"]
    assert governors(found, "d2h_s") == ["link.latency_s", "link.d2h_bytes_per_s"]
    assert governors(found, "accel_attention_s") == ["gpu.attention.fixed_s", "gpu.attention.efficiency"]
    assert governors(found, "host_attention_s") == ["host_attention_fixed_s", "cpu.attention_share"]
    assert governors(explained(1, model="tiny-1m"), "linear_s") == ["gpu.op_fixed_s"]


def test_batch_and_context_belong_to_attention_alone() -> None:
    (usual,), (more,) = explained(16).rows, explained(16, batch=32, context=2000).rows
    assert (usual.batch, more.batch) == (16, 32)
    for op in ("linear_s", "h2d_s", "d2h_s"):
        assert getattr(more, op) == getattr(usual, op)
    for op, fixed_s in (("accel_attention_s", 10e-6), ("host_attention_s", 20e-6)):
        assert getattr(more, op) - fixed_s == pytest.approx(4 * (getattr(usual, op) - fixed_s))


def test_every_governor_says_where_it_comes_from() -> None:
    found = explained(1, 4096)
    sources = load_hardware("t4_g4dn_4xlarge").sources
    for row in found.rows:
        assert list(row.governed_by) == list(OPS)
        for governor in row.governed_by.values():
            source = sources[governor.constant]
            assert (governor.source, governor.grade) == (source.text, source.grade)
            assert {governor.constant, *governor.of} <= found.constants.keys()
    compute = found.constants["gpu.gemm.compute_efficiency"]
    assert (compute.value, compute.grade, compute.low, compute.high) == (0.46, "assumed", 0.32, 0.65)
    assert found.constants["gpu.flops.float16"].value == 65e12


def test_what_stands_on_the_terminal() -> None:
    found = explained(1, 4096)
    listing = ops_listing(found)
    assert listing.columns[2] == "matrix products us"
    assert [row[2].split()[1] for row in listing.rows] == ["bandwidth", "compute"]
    shown = {row[0]: row[1:] for row in constants_listing(found).rows}
    assert shown["gpu.gemm.compute_efficiency"][:3] == ("0.46", "0.32 to 0.65", "assumed")
    assert shown["gpu.flops.float16"][:3] == ("6.5e+13", "-", "datasheet")


@pytest.mark.parametrize("text", ["", "x", "1,0", "1,-2", "1.5", "1,,2", "9" * 5000, "٣"])
def test_tokens_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="no positive whole number"):
        parsed_tokens(text)


def test_tokens() -> None:
    assert parsed_tokens("1, 16,256") == (1, 16, 256)


def test_on_the_command_line(call: Call, tmp_path: Path) -> None:
    answer = call(*T4, "--tokens", "1,256", "--json")
    assert answer.code == 0
    told = json.loads(answer.out)
    assert [row["tokens"] for row in told["rows"]] == [1, 256]
    assert told["rows"][1]["governed_by"]["linear_s"]["constant"] == "gpu.gemm.compute_efficiency"
    shown = call(*T4, "--tokens", "1,256")
    assert "gpu.gemm.compute_efficiency" in shown.out
    assert "0.32 to 0.65" in shown.out
    copy = tmp_path / "mine.yaml"
    copy.write_text(json.dumps({"name": "x"}))
    mistakes = call("explain", "ops", "--hardware", copy, "--model", "llama-2-7b", "--tokens", "1")
    assert mistakes.code == 2
    assert len(mistakes.errors) > 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--hardware", "t4"), 'hardware "t4" is neither in the catalogue nor a readable file'),
        (("--model", "llama-9"), "unknown model 'llama-9'"),
        (("--tokens", "1,0"), "'0' is no positive whole number"),
        (("--dtype", "bfloat16"), "t4_g4dn_4xlarge has no bfloat16"),
    ],
)
def test_mistakes_are_one_line(call: Call, arguments: tuple[str, str], words: str) -> None:
    answer = call(*T4, "--tokens", "1", *arguments)
    assert answer.code == 2
    (line,) = answer.errors
    assert words in line
