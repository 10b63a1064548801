"""What begins a new series and what does not: machines and setups do, names, patches and neighbours do not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.tracking import identity
from results.query import load_run
from results.schema import CellSummary, Label, Manifest

MACHINE: dict[str, Any] = {
    "cpu": "EPYC 7313",
    "cores": 16,
    "memory_bytes": 64 * 1024**3,
    "kernel": "Linux 6.8.0-31-generic",
    "architecture": "x86_64",
    "gpus": [{"name": "Tesla T4", "memory_bytes": 15 * 1024**3, "driver": "550.54.15"}],
    "load_average": 0.1,
}
Change = Callable[[dict[str, Any]], object]


def on(change: Change | None = None, label: Label = Label.MEASURED) -> str:
    machine = copy.deepcopy(MACHINE)
    if change is not None:
        change(machine)
    config = {"hardware": "t4_g4dn_4xlarge"}
    return identity.testbed(Manifest("n", label, backend="cuda", config=config, machine=machine), label).digest


@pytest.mark.parametrize(
    "change",
    [
        lambda machine: machine.update(cpu="another"),
        lambda machine: machine.update(cores=8),
        lambda machine: machine.update(memory_bytes=32 * 1024**3),
        lambda machine: machine.update(kernel="Linux 7.0.1"),
        lambda machine: machine.update(gpus="none: no driver"),
        lambda machine: machine["gpus"][0].update(name="A10"),
        lambda machine: machine["gpus"][0].update(driver="560.1"),
        lambda machine: machine["gpus"].append(dict(machine["gpus"][0])),
    ],
)
def test_another_machine_is_another_testbed_unless_nothing_ran_on_it(change: Change) -> None:
    assert on(change) != on()
    assert on(change, Label.SIMULATED) == on(None, Label.SIMULATED)


@pytest.mark.parametrize(
    "change",
    [
        lambda machine: machine.update(load_average=9.0, load_warning="busy"),
        lambda machine: machine.update(memory_bytes=64 * 1024**3 - 200_000_000),
        lambda machine: machine.update(kernel="Linux 6.9.1-2"),
        lambda machine: machine["gpus"][0].update(driver="550.90.07"),
    ],
)
def test_patches_and_loads_are_the_same_machine(change: Change) -> None:
    assert on(change) == on()


def test_labels_never_share_a_testbed() -> None:
    assert len({on(None, label) for label in Label}) == 3


@pytest.fixture
def asked(made: Path) -> Callable[..., str]:
    run = load_run(made)
    (cell,) = [cell for cell in run.cells if cell.engine == "gpu_only" and cell.repeat == 0]

    def digest(change: Change | None = None, clip: int | None = None) -> str:
        config = json.loads(json.dumps(run.manifest.config))
        if change is not None:
            change(config)
        return identity.setup(replace(run.manifest, config=config), cell, clip).digest

    return digest


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(name="renamed"),
        lambda config: config["measure"].update(repeats=9, order="sequential", time_limit_s=5, draws=2),
        lambda config: config["engines"].append({"kind": "neo", "name": "neo"}),
        lambda config: config["workloads"].append({"kind": "chat", "rate": 1}),
        lambda config: config["budget"].pop("max_batch_tokens"),  # as a version before this key wrote it
        lambda config: config.update(slo=None, added_later=None),
    ],
)
def test_the_same_setup(asked: Callable[..., str], change: Change) -> None:
    assert asked(change) == asked()


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["measure"].update(seed=1),
        lambda config: config["measure"].update(warmup_requests=1),
        lambda config: config["engines"][0].update(keep_preempted_kv=True),
        lambda config: config["workloads"][0].update(output=5),
        lambda config: config.update(model="tiny-30m"),
        lambda config: config["budget"].update(accel_kv_tokens=2048),
        lambda config: config.update(slo={"ttft_s": 1.0}),
    ],
)
def test_another_setup(asked: Callable[..., str], change: Change) -> None:
    assert asked(change) != asked()


def test_the_point_of_a_sweep_is_not_the_sweep(asked: Callable[..., str], made: Path) -> None:
    """More points beside it do not make another of it."""
    run = load_run(made)
    cell = replace(run.cells[0], workload="batch-2")
    digests = set()
    for sizes in ([2, 4], [2, 4, 8]):
        sweep = {"kind": "batch", "batch": sizes, "prompt": 16, "output": 4}
        config = {**run.manifest.config, "workloads": [sweep]}
        digests.add(identity.setup(replace(run.manifest, config=config), cell, None).digest)
    assert len(digests) == 1
    assert digests.isdisjoint({asked()})


def test_requests_that_were_really_cut_make_another_setup(asked: Callable[..., str], made: Path) -> None:
    def cut(cell: CellSummary, requests: int) -> CellSummary:
        return replace(cell, resolved={"clipped": {"limit_tokens": 481, "clipped_requests": requests}})

    first, *_ = load_run(made).cells
    assert identity.clips([cut(first, 0)]) == {}
    assert identity.clips([cut(first, 3), replace(first, resolved={})]) == {first.workload: 481}
    assert asked(clip=481) != asked()
