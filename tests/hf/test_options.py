"""What may be asked of the engine, what is said where it may not, and what the worker is told of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.hf import options
from engines.hf.options import HuggingFace
from engines.process import adapter
from engines.process.adapter import ProcessAdapter, Worker
from engines.registry import make_engine, option_mistakes
from harness.build import check_model
from harness.generate import specification
from harness.plan import CellSpec
from tests.process.workers import site

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a word that is none": ({"offload": "gpu"}, "'none', 'cpu' or 'disk'"),
    "attention": ({"attention": "flash"}, "'sdpa' or 'eager'"),
    "no batch": ({"batch": 0}, "batch: must be auto or at least 1, not 0"),
    "no time": ({"start_limit_s": 0}, "start_limit_s: must be above 0, not 0"),
    "both ways": ({"offload": "cpu", "device_map": "auto"}, "give one of the two"),
    "no placement": (
        {"device_map": "automatic"},
        "device_map: must be auto, balanced, balanced_low_0, sequential or say {module: device}, not 'automatic'",
    ),
    "memory for nothing": ({"max_memory": {"cpu": "1GiB"}}, "max_memory: goes with device_map: auto | "),
    "memory for a map": (
        {"device_map": {"": 0}, "max_memory": {0: "1GiB"}},
        "max_memory: goes with device_map: auto | ",
    ),
    "no size": (
        {"device_map": "auto", "max_memory": {0: "ten"}},
        "max_memory: 0: must be bytes or a size such as 10GiB, not 'ten'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str) -> None:
    given, message = MISTAKES[mistake]
    [(_, found)] = option_mistakes("hf", given)
    assert message in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("backend", "paced", "given", "problem"),
    [
        ("sim", False, {}, "is the real one and cannot be simulated; leave it out there"),
        ("endpoint", False, {}, "runs here; for a server that is already running use kind: openai"),
        ("cpu", True, {}, "is the real one and cannot be paced; set emulation.mode: native"),
        ("cpu", False, {"python": "/no/python"}, "no Python at /no/python; give python: PATH"),
        ("cpu", False, {"offload": "disk", "offload_folder": "/no/folder"}, "offload_folder: no folder at /no/folder"),
        (
            "cpu",
            False,
            {"device_map": "auto", "max_memory": {0: "8GiB", "cpu": "8GiB"}},
            "device '0' is not there on backend cpu; device_map and max_memory may name cpu and disk",
        ),
        (
            "cpu",
            False,
            {"device_map": {"model": "cuda:0", "lm_head": "cpu"}},
            "device 'cuda:0' is not there on backend cpu; device_map and max_memory may name cpu and disk",
        ),
        (
            "cuda",
            False,
            {"device_map": {"model": "cpu", "lm_head": "disk"}},
            "device_map: puts nothing on the GPU, so that the CPU would compute; name 0, or set offload: cpu",
        ),
        ("cpu", False, {"offload": "cpu"}, ""),
        ("cpu", False, {"device_map": "auto", "max_memory": {"cpu": "8GiB"}}, ""),
        ("cuda", False, {"device_map": {"model": 0, "lm_head": "cpu"}}, ""),
    ],
)
def test_where_it_cannot_run(backend: str, paced: bool, given: dict[str, Any], problem: str) -> None:
    problems = make_engine("hf", given).problems(backend, paced)
    assert problems == ([problem] if problem else [])


@pytest.mark.parametrize("given", [{}, {"offload": "cpu"}, {"device_map": "auto"}], ids=["none", "offload", "map"])
def test_without_accelerate_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    """Where weights stay where they are it is not needed."""
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    problems = make_engine("hf", given).problems("cpu", False)
    assert problems == (["offload and device_map need Accelerate: run `pip install accelerate`"] if given else [])


def test_an_experiment_that_cannot_run_it_says_so_before_it_starts(model_root: Path) -> None:
    paced = {"hardware": "t4_g4dn_4xlarge", "emulation": "paced"}
    spec = specification("hf", "cpu", "tiny-1m", GENERATING | paced)
    assert check_model(spec) == ["engine hf: is the real one and cannot be paced; set emulation.mode: native"]


GENERATING = {
    "dtype": "float32",
    "max_batch": 4,
    "max_batch_tokens": 64,
    "accel_kv_tokens": 256,
    "seed": 0,
    "emulation": "native",
    "policy_options": {},
}


def test_devices_are_numbers_in_a_configuration_and_words_on_the_way() -> None:
    """A cell's specification is JSON, which knows words alone as keys."""
    given = {"device_map": "auto", "max_memory": {0: "8GiB", "cpu": 4096}}
    spec = specification("hf", "cpu", "tiny-1m", GENERATING | {"policy_options": given})
    engine = make_engine("hf", CellSpec.from_json(spec.to_json()).engine.options)
    assert engine == HuggingFace(device_map="auto", max_memory={"0": "8GiB", "cpu": 4096})


def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str, **given: Any) -> Worker:
    """What `open` would start."""
    found: list[Worker] = []

    def opened(worker: Worker, place: object) -> ProcessAdapter:
        found.append(worker)
        return adapter.ProcessAdapter(worker, replace(site(tmp_path), backend=backend))

    monkeypatch.setattr(options, "ProcessAdapter", opened)
    HuggingFace(**given).open(replace(site(tmp_path), backend=backend))
    return found[0]


def test_it_runs_under_this_python_and_is_told_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker = told(monkeypatch, tmp_path, "cpu", batch="auto", attention="eager")
    assert worker.python == sys.executable
    assert worker.settings["batch"] == site(tmp_path).max_batch
    assert worker.settings["attention"] == "eager"
    assert worker.environment["OMP_NUM_THREADS"] == "1"
    assert worker.files_in is None


def test_on_a_gpu_the_threads_are_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "device_map": "auto",
        "max_memory": {0: "8GiB"},
        "batch": 2,
        "offload_folder": str(tmp_path),
    }
    worker = told(monkeypatch, tmp_path, "cuda", **given)
    assert "OMP_NUM_THREADS" not in worker.environment
    assert worker.settings["max_memory"] == {"0": "8GiB"}
    assert worker.settings["batch"] == 2
    assert worker.files_in == tmp_path
