"""Weights in fewer bits: what they free, what it costs, and where it may be asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from engines.core.roofline import Roofline
from engines.hardware import load_hardware
from engines.model.config import load_config
from harness.build import check
from harness.config import load_experiment
from harness.costs import cost_table
from harness.lean import figures
from harness.plan import CellSpec, expand, left_out
from harness.sizing import size

SETS = [
    "engines=[gpu_only, {kind: gpu_only, name: four, weight_bits: 4}, {kind: gpu_only, name: eight, weight_bits: 8}]",
    "workloads=[{kind: long_output, prompt: 200, output: 300, requests: 20}]",
    "measure.repeats=1",
    "measure.warmup_requests=0",
]


def _cells(*more: str, backend: str = "sim") -> dict[str, CellSpec]:
    experiment = load_experiment("t4_llama2", [*SETS, *more])
    return {cell.engine.name: cell for cell in expand(experiment, backend)}  # type: ignore[arg-type]


def test_what_packing_frees_is_kv() -> None:
    """By hand: 32 layers of 202,375,168 parameters, from 2 bytes to 4.5 bits; KV is 512 KiB a token."""
    cells = _cells("budget.accel_kv_tokens=auto")
    plain, four = size(cells["gpu_only"]), size(cells["four"])
    model = load_config("llama-2-7b")
    assert model.linear_parameters_per_layer == 202_375_168
    freed = 32 * 202_375_168 * (2 - 4.5 / 8)
    assert plain.weight_bytes - four.weight_bytes == pytest.approx(freed, abs=1)
    assert four.accel_kv_tokens - plain.accel_kv_tokens == pytest.approx(freed / 524_288, abs=2)


def test_a_cap_of_kv_tokens_stands_for_bytes_beside_plain_weights() -> None:
    cells = _cells("budget.accel_kv_tokens=1600")
    assert size(cells["gpu_only"]).accel_kv_tokens == 1600
    freed = size(cells["gpu_only"]).weight_bytes - size(cells["eight"]).weight_bytes
    assert size(cells["eight"]).accel_kv_tokens == 1600 + freed // 524_288


def test_few_rows_stream_fewer_bytes_and_many_rows_pay_for_unpacking() -> None:
    cells = _cells()
    plain, four = cost_table(cells["gpu_only"]), cost_table(cells["four"])
    assert isinstance(plain, Roofline)
    assert isinstance(four, Roofline)
    assert 2 < plain.linear_s(1) / four.linear_s(1) < 4  # not four times: 4.5 bits, and a worse kernel
    assert four.linear_s(2048) > plain.linear_s(2048)
    assert four.head_s(1) == plain.head_s(1)  # the head stays as it is
    assert four.accel_attention_s is not plain.accel_attention_s
    assert four.kv_to_host_s(100) == plain.kv_to_host_s(100)


def test_it_serves_more_at_once() -> None:
    cells = _cells()
    rates = {name: figures(cell).metrics["output_tokens_per_s_whole_run"] for name, cell in cells.items()}
    assert rates["gpu_only"] < rates["eight"] < rates["four"]


@pytest.mark.parametrize(
    ("engine", "backend", "why"),
    [
        ("{kind: gpu_only, weight_bits: 4}", "cpu", "simulated only"),
        ("{kind: lp_balanced, weight_bits: 4}", "sim", "compression options"),
        ("{kind: mock, weight_bits: 4}", "sim", "our own schedulers"),
    ],
)
def test_where_it_cannot_be_asked_for(engine: str, backend: str, why: str) -> None:
    experiment = load_experiment("t4_llama2", [*SETS, f"engines=[{engine}]", f"backend={backend}"])
    problems = check(expand(experiment, backend)[0])  # type: ignore[arg-type]
    assert any(why in problem for problem in problems), problems


def test_where_the_machine_is_at_hand_they_are_left_out() -> None:
    """The shipped experiments measure on the GPU that they name; an engine for the simulation must not stop that."""
    experiment = load_experiment("t4_llama2")
    assert experiment.backend == "auto"
    assert left_out(experiment, "cuda") == ["gpu_only_4bit", "apex_4bit"]
    assert left_out(experiment, "sim") == []
    assert left_out(load_experiment("t4_llama2", ["backend=cuda"]), "cuda") == []  # asked for by name: an error instead
    names = {cell.engine.name for cell in expand(experiment, "cuda")}
    assert names == {engine.name for engine in experiment.engines} - {"gpu_only_4bit", "apex_4bit"}


def test_a_machine_that_says_nothing_of_it(tmp_path: Path) -> None:
    values = yaml.safe_load(Path("engines/hardware/t4_g4dn_4xlarge.yaml").read_text())
    del values["gpu"]["gemm_4bit"]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(values))
    problems = check(replace(_cells()["four"], hardware=str(mine)))
    assert any("gpu.gemm_4bit" in problem for problem in problems), problems
    assert load_hardware(str(mine)).gpu.gemm_4bit is None
