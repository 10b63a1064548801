"""Which cells there are, in which order, under which ids and seeds; and which backend `auto` means."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from harness.config import Experiment, load_experiment
from harness.errors import ConfigError
from harness.gpu import LocalGpu
from harness.plan import CellSpec, cell_seed, expand, resolve_backend
from tests.harness.conftest import REPOSITORY, VALID, Write


def experiment(**changes: Any) -> Experiment:
    engines = [{"kind": "gpu_only", "name": name} for name in "ABC"]
    return Experiment.model_validate(VALID | {"engines": engines} | changes)


def order(cells: list[CellSpec]) -> str:
    return "".join(cell.engine.name for cell in cells)


def test_interleaved_order_rotates_the_engines() -> None:
    cells = expand(experiment(measure={"repeats": 4}), "sim")
    assert order(cells) == "ABCCABBCAABC"
    assert [cell.repeat for cell in cells] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert [cell.order for cell in cells] == list(range(12))


def test_sequential_order_keeps_an_engine_together() -> None:
    cells = expand(experiment(measure={"repeats": 2, "order": "sequential"}), "sim")
    assert order(cells) == "AABBCC"


def test_a_sweep_becomes_cells() -> None:
    sweep = {"kind": "long_output", "prompt": 32, "output": [4, 8], "requests": 2}
    cells = expand(experiment(workloads=[sweep, {"kind": "batch", "prompt": 8, "output": 2}]), "sim")
    assert [cell.workload.name for cell in cells[::3]] == ["long_output-4", "long_output-8", "batch"]
    assert cells[0].workload.options["output"] == 4
    assert order(cells) == "ABCABCABC"


def test_seeds_are_shared_by_engines_and_by_the_points_of_a_sweep() -> None:
    sweep = {"kind": "chat", "rate": [1, 2], "requests": 2}
    cells = expand(experiment(workloads=[sweep], measure={"repeats": 2}), "sim")
    seeds = {repeat: {cell.measure.seed for cell in cells if cell.repeat == repeat} for repeat in (0, 1)}
    assert len(seeds[0]) == len(seeds[1]) == 1
    assert seeds[0] != seeds[1]
    assert cell_seed(0, "chat", 1) != cell_seed(1, "chat", 0)


def test_ids_are_readable_safe_unique_and_stable() -> None:
    cells = expand(experiment(measure={"repeats": 2}), "sim")
    ids = [cell.cell_id for cell in cells]
    assert len(set(ids)) == 6
    assert all(re.fullmatch(r"[a-z0-9._-]{1,120}", cell_id) for cell_id in ids)
    assert ids[0].startswith("a-batch-r0-")
    assert ids == [cell.cell_id for cell in expand(experiment(measure={"repeats": 2}), "sim")]


def test_an_id_follows_what_decides_the_numbers_and_nothing_else() -> None:
    def first_id(**changes: Any) -> str:
        return expand(experiment(**changes), "sim")[0].cell_id

    base = first_id()
    same: list[dict[str, Any]] = [{"name": "other"}, {"measure": {"repeats": 3, "time_limit_s": 5}}]
    different: list[dict[str, Any]] = [
        {"budget": {"max_batch": 4}},
        {"model": "tiny-30m"},
        {"measure": {"seed": 1}},
        {"slo": {"ttft_s": 1}},
        {"workloads": [{"kind": "batch", "batch": 2, "prompt": 16, "output": 5}]},
    ]
    assert all(first_id(**changes) == base for changes in same)
    assert len({base, *(first_id(**changes) for changes in different)}) == 1 + len(different)
    assert expand(experiment(), "cpu")[0].cell_id != base


def test_an_id_is_the_same_in_another_process(write: Write) -> None:
    config = str(write())
    program = (
        "from harness.config import load_experiment; from harness.plan import expand; "
        f"print(expand(load_experiment({config!r}), 'sim')[0].cell_id)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", program]
    there = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == expand(load_experiment(config), "sim")[0].cell_id


def test_a_spec_survives_json() -> None:
    changes = {"slo": {"ttft_s": 1.5}, "budget": {"accel_memory": "14.6GiB"}, "hardware": "a10"}
    for cell in expand(experiment(**changes), "sim"):
        assert CellSpec.from_json(cell.to_json()) == cell
    assert cell.budget.accel_memory == int(14.6 * 2**30)
    assert cell.label == "simulated"


def test_a_path_is_absolute_and_a_name_is_not(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write()
    machine = config.parent / "mine.yaml"
    from importlib import resources

    machine.write_text(resources.files("engines.hardware").joinpath("a10.yaml").read_text())
    monkeypatch.chdir(config.parent)
    cell = expand(load_experiment("experiment.yaml", ["hardware=mine.yaml"]), "sim")[0]
    assert cell.hardware == str(machine)
    assert cell.model == "tiny-1m"


@pytest.mark.parametrize(
    ("gpus", "torch_says", "expected"),
    [
        ([], "", "sim"),
        ([LocalGpu("NVIDIA H200", 1, "570")], "", "sim"),
        ([LocalGpu("Tesla T4", 1, "570")], "", "cuda"),
        ([LocalGpu("Tesla T4", 1, "570")], "this torch cannot use CUDA", "sim"),
    ],
)
def test_auto_is_cuda_only_on_the_named_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: list[LocalGpu], torch_says: str, expected: str
) -> None:
    monkeypatch.setattr("harness.plan.local_gpus", lambda: (gpus, "no driver"))
    monkeypatch.setattr("harness.plan.torch_reaches_gpu", lambda: torch_says)
    backend, label, why = resolve_backend(experiment(backend="auto"))
    assert backend == expected
    assert label == {"cuda": "measured", "sim": "simulated"}[expected]
    assert why


def test_cuda_runs_on_whatever_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.local_gpus", lambda: ([LocalGpu("NVIDIA H200", 1, "570")], ""))
    monkeypatch.setattr("harness.plan.torch_reaches_gpu", lambda: "")
    assert resolve_backend(experiment(backend="cuda", hardware=None))[0] == "cuda"
    monkeypatch.setattr("harness.plan.torch_reaches_gpu", lambda: "this torch cannot use CUDA")
    with pytest.raises(ConfigError, match="this torch cannot use CUDA"):
        resolve_backend(experiment(backend="cuda"))
