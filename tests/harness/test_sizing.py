"""Host threads and the run's common request limit: what a budget of `auto` becomes, and that no engine sees more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

import pytest

from engines.core.types import Capabilities
from engines.gpu_only.policy import GpuOnly
from engines.hardware import load_hardware
from engines.model.config import load_config
from engines.registry import BUILT_IN, EngineEntry
from harness import build, sizing
from harness.config import Experiment
from harness.plan import CellSpec, expand
from harness.sizing import Sizing, host_threads, longest_request_tokens
from tests.harness.conftest import VALID


def experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate(VALID | changes)


def cell(**changes: Any) -> CellSpec:
    chosen = experiment(**changes)
    assert chosen.backend in ("sim", "cpu")
    return expand(chosen, "sim" if chosen.backend == "sim" else "cpu")[0]


# --- threads ----------------------------------------------------------------------------------------------------------

AUTO = {"accel_kv_tokens": 4096, "max_batch": 8}


def test_threads_that_are_given_are_taken() -> None:
    assert host_threads(cell(budget=AUTO | {"cpu_threads": 3})) == 3


def test_a_simulated_cell_has_the_cores_of_the_modelled_machine_but_one() -> None:
    found = host_threads(cell(budget=AUTO))
    assert found == load_hardware(VALID["hardware"]).cpu.cores - 1
    assert found > 1


@pytest.mark.parametrize(("cores", "accel_cores", "threads"), [(8, 1, 7), (8, 3, 5), (2, 1, 1), (1, 1, 1), (2, 4, 1)])
def test_an_emulated_cell_has_the_local_cores_beside_the_accelerators(
    monkeypatch: pytest.MonkeyPatch, cores: int, accel_cores: int, threads: int
) -> None:
    monkeypatch.setattr(sizing, "allowed_cores", lambda: list(range(cores)))
    spec = cell(backend="cpu", dtype="float32", budget=AUTO | {"accel_cores": accel_cores})
    assert host_threads(spec) == threads
    policy = GpuOnly()
    assert sizing.capabilities(spec, sizing.size(spec), policy).host_threads == threads


# --- the common limit -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Roomy:
    """Schedules like gpu_only; `share` of the accelerator's KV is its own, the rest goes to something else it wants."""

    share: float = 1.0
    name = "roomy"
    uses_host_kv = False
    partition = GpuOnly.partition
    decide = GpuOnly.decide


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine one of whose options changes what it can hold."""
    honest = sizing.capabilities

    def shared(spec: CellSpec, sizes: Sizing, policy: Any) -> Capabilities:
        found = honest(spec, sizes, policy)
        if not isinstance(policy, Roomy):
            return found
        return replace(found, accel=replace(found.accel, blocks=int(found.accel.blocks * policy.share)))

    monkeypatch.setitem(BUILT_IN, "roomy", EngineEntry("roomy", f"{__name__}:Roomy", "for tests", "ours"))
    monkeypatch.setattr(sizing, "capabilities", shared)
    monkeypatch.setattr(build, "capabilities", shared)


LONG = [{"kind": "long_output", "requests": 40, "prompt": 150, "output": 150, "jitter": 0.9}]


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize("first", ["gpu_only", "roomy"])
def test_a_workload_is_cut_once_to_what_every_engine_of_the_run_holds(first: str) -> None:
    engines: list[Any] = ["gpu_only", {"kind": "roomy", "share": 0.25}]
    budget = {"accel_kv_tokens": 1024, "cpu_threads": 1, "max_batch": 8}
    order = engines if first == "gpu_only" else engines[::-1]
    cells = expand(experiment(engines=order, budget=budget, workloads=LONG), "sim")
    assert [longest_request_tokens(cell) for cell in cells] == ([1025, 257] if first == "gpu_only" else [257, 1025])
    assert [cell.max_request_tokens for cell in cells] == [257, 257]
    one, other = (build._clipped(cell, sizing.size(cell)) for cell in cells)
    assert one.requests == other.requests
    assert one.clipped == other.clipped
    assert one.clipped is not None
    assert one.clipped.limit_tokens == 257
    assert 0 < one.clipped.clipped_requests < 40
    assert max(request.prompt_tokens + request.output_tokens for request in one.requests) == 257


@pytest.mark.usefixtures("roomy")
def test_the_company_of_a_smaller_engine_is_another_cell() -> None:
    """Its numbers are others, so a run that is resumed must not take one for the other."""
    budget = {"accel_kv_tokens": 1024, "cpu_threads": 1, "max_batch": 8}
    alone = expand(experiment(budget=budget, workloads=LONG), "sim")[0]
    both = expand(experiment(engines=["gpu_only", {"kind": "roomy", "share": 0.25}], budget=budget), "sim")[0]
    assert alone.cell_id != both.cell_id


def test_the_models_context_is_a_limit_too() -> None:
    spec = cell(budget={"accel_kv_tokens": 10**6, "cpu_threads": 1})
    assert spec.max_request_tokens == longest_request_tokens(spec) <= 10**6
    assert spec.max_request_tokens == load_config(spec.model).max_positions


def test_a_run_that_does_not_fit_has_no_limit_and_is_told_by_the_check() -> None:
    spec = cell(budget={"accel_memory": "1MiB", "cpu_threads": 1})
    assert spec.max_request_tokens is None
    assert any("accel_memory" in problem for problem in build.check(spec))


def test_a_specification_keeps_its_limit() -> None:
    spec = cell()
    assert CellSpec.from_json(spec.to_json()) == spec
    assert dataclasses.asdict(spec)["max_request_tokens"] == spec.max_request_tokens
