"""Engines on several GPUs of one machine: what fits, what it brings, and where it can be asked for."""

from __future__ import annotations

import pytest

from engines.core.roofline import Roofline
from engines.hardware import load_hardware
from harness.build import check
from harness.config import load_experiment
from harness.costs import cost_table
from harness.lean import figures
from harness.plan import CellSpec, expand, left_out
from harness.several_gpus import largest_share
from harness.sizing import size

MULTI = "survey_llama70b_multi_gpu"
RATE, LATENCY = "output_tokens_per_s_whole_run", "response_latency_s"


def _cells(*engines: str, more: tuple[str, ...] = (), backend: str = "sim") -> dict[str, CellSpec]:
    sets = [
        f"engines=[{', '.join(engines)}]",
        "model=llama-2-13b",
        "workloads=[{kind: batch, batch: 4, prompt: 256, output: 16}]",
        *more,
    ]
    return {cell.engine.name: cell for cell in expand(load_experiment(MULTI, sets), backend)}  # type: ignore[arg-type]


def _on(kind: str, gpus: int, parallel: str, options: str = "") -> str:
    return f"{{kind: {kind}, name: {parallel}-{gpus}, gpus: {gpus}, parallel: {parallel}{options}}}"


def test_memory_is_that_of_all_of_them() -> None:
    """26 GB of weights: two GPUs of 20 GiB hold them, each with rows of its own; what is left is KV, as on one."""
    cells = _cells(_on("gpu_only", 2, "tensor"), _on("gpu_only", 2, "pipeline"), _on("gpu_only", 4, "tensor"))
    two, piped, four = (size(cells[name]) for name in ("tensor-2", "pipeline-2", "tensor-4"))
    assert two.accel_kv_tokens == piped.accel_kv_tokens
    each = (20 * 2**30 - two.workspace_bytes // 2) * 2
    left = (each - two.weight_bytes) // two.kv_bytes_per_token
    assert two.accel_kv_tokens == pytest.approx(min(left, 16 * 4096), abs=1)
    assert four.workspace_bytes == 2 * two.workspace_bytes


def test_heads_and_layers_are_not_divided() -> None:
    cells = _cells(_on("gpu_only", 3, "tensor"), _on("gpu_only", 3, "pipeline"))
    assert largest_share(cells["tensor-3"]) == 14 / 40
    assert largest_share(cells["pipeline-3"]) == 14 / 40
    assert largest_share(_cells(_on("gpu_only", 4, "tensor"))["tensor-4"]) == 1 / 4


def test_rates_together() -> None:
    """Streaming a layer is four times as fast, its fixed part is not, and links carry no more than the host gives."""
    cells = _cells(_on("gpu_only", 4, "tensor"), "{kind: gpu_only, name: one}", more=("budget.accel_memory=40GiB",))
    four, one = cost_table(cells["tensor-4"]), cost_table(cells["one"])
    assert isinstance(four, Roofline)
    assert isinstance(one, Roofline)
    peers = load_hardware("survey_4xa10g").peers
    assert peers is not None
    assert four.machine.gemm_bytes_per_s == pytest.approx(4 * one.machine.gemm_bytes_per_s)
    assert four.machine.gemm_fixed_s == one.machine.gemm_fixed_s
    assert four.machine.h2d_bytes_per_s == pytest.approx(min(4 * one.machine.h2d_bytes_per_s, peers.host_bytes_per_s))
    assert one.linear_s(4) / 4 < four.linear_s(4) < one.linear_s(4)


def test_one_gpu_is_what_it_was() -> None:
    """Neither its numbers nor its name change because others might be used."""
    one = ("budget.accel_memory=40GiB",)
    [plain] = _cells("gpu_only", more=one).values()
    [said] = _cells("{kind: gpu_only, gpus: 1}", more=one).values()
    assert plain.cell_id == said.cell_id
    assert figures(plain).metrics == figures(said).metrics


@pytest.mark.parametrize("kind", ["gpu_only", "static_partition", "lp_balanced", "weight_streaming"])
def test_pipelines_of_every_engine_that_can_serve_all(kind: str) -> None:
    """And with more GPUs nobody takes longer, but for the ways between them."""
    options = ", context: 512, slots: 4" if kind == "static_partition" else ""
    cells = _cells(*[_on(kind, gpus, "pipeline", options) for gpus in (2, 4)])
    two, four = (figures(cells[f"pipeline-{gpus}"]).metrics for gpus in (2, 4))
    assert two["finished_requests"] == four["finished_requests"] == 4
    assert four[LATENCY] <= two[LATENCY] * 1.02


def test_tensor_parallel_has_the_lowest_latency() -> None:
    cells = _cells(*[_on("gpu_only", 4, parallel) for parallel in ("tensor", "pipeline")])
    tensor, pipeline = (figures(cells[f"{parallel}-4"]).metrics[LATENCY] for parallel in ("tensor", "pipeline"))
    assert 1.9 < pipeline / tensor < 4, "weights are divided by four; launches, norms and sums are not"


def test_a_pipeline_serves_many_nearly_as_fast_as_its_stages() -> None:
    """Four stages and many more rows than stages: each GPU streams a quarter of the weights for a quarter of them."""
    many = ("workloads=[{kind: batch, batch: 64, prompt: 64, output: 64}]", "budget.max_batch=64")
    cells = _cells(_on("gpu_only", 2, "pipeline"), _on("gpu_only", 4, "pipeline"), more=many)
    two, four = (figures(cells[f"pipeline-{gpus}"]).metrics for gpus in (2, 4))
    assert four["finished_requests"] == 64
    assert 1.0 < four[RATE] / two[RATE] < 2.0


def test_neo_and_apex_split_layers_over_gpus() -> None:
    workload = ("workloads=[{kind: long_output, prompt: 500, output: 50, requests: 12}]", "budget.accel_kv_tokens=2048")
    cells = _cells(_on("neo", 2, "tensor"), "{kind: apex, name: apex, gpus: 2}", more=workload)
    for cell in cells.values():
        assert figures(cell).metrics["finished_requests"] == 12


@pytest.mark.parametrize(
    ("engine", "sets", "why"),
    [
        (_on("gpu_only", 8, "tensor"), (), "gpus: 8, survey_4xa10g has 4"),
        (_on("gpu_only", 2, "tensor"), ("hardware=t4_g4dn_4xlarge",), "t4_g4dn_4xlarge has one; peers: in its file"),
        (
            _on("gpu_only", 5, "tensor"),
            ("model=tiny-1m", "hardware=a100"),
            "5 GPUs share 4 KV heads of tiny-1m; use fewer",
        ),
        (
            _on("gpu_only", 5, "pipeline"),
            ("model=tiny-1m", "hardware=a100"),
            "5 GPUs share 4 layers of tiny-1m; use fewer",
        ),
        (_on("neo", 2, "pipeline"), (), "keep no request's KV on the host; use tensor"),
        (_on("gpu_only", 2, "pipeline", ", preemption: swap"), (), "keep no request's KV on the host; use tensor"),
        (_on("mock", 2, "tensor"), (), "our own schedulers"),
    ],
)
def test_where_it_cannot_be_asked_for(engine: str, sets: tuple[str, ...], why: str) -> None:
    [cell] = _cells(engine, more=sets).values()
    problems = check(cell)
    assert any(why in problem for problem in problems), problems


def test_a_real_machine_is_told_so_or_left_without() -> None:
    [cell] = _cells(_on("gpu_only", 2, "tensor"), more=("backend=cpu",), backend="cpu").values()
    assert any("simulated only" in problem for problem in check(cell))
    experiment = load_experiment(MULTI)
    assert set(left_out(experiment, "cuda")) == {
        each.name for each in experiment.engines if not each.name.endswith("-1")
    }
