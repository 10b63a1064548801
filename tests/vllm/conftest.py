"""Runs of our baseline beside the real vLLM, each made once, as a user makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from results.query import Run, load_run
from tests.e2e.commands import harness
from tests.harness.conftest import call, write
from tests.model_folders import make_folder

__all__ = ["call", "write"]

EXPERIMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "beside",
    "backend": "cpu",
    "dtype": "float32",
    "emulation": {"mode": "native"},
    "budget": {
        "accel_kv_tokens": 512,
        "accel_page_tokens": 32,
        "max_batch": 8,
        "max_batch_tokens": 96,
    },
    "engines": ["gpu_only", {"kind": "vllm", "eager": True}],
    "workloads": [
        {"kind": "batch", "name": "batch_limited", "batch": 20, "prompt": 33, "output": 24},
        {"kind": "batch", "name": "kv_starved", "batch": 14, "prompt": 70, "output": 90},
    ],
    "measure": {"repeats": 1, "warmup_requests": 0, "time_limit_s": 240},
}


@pytest.fixture(scope="session")
def beside(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(EXPERIMENT, model_root, tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="session")
def both_keep(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """vLLM as it is shipped, with prefix caching on, and a `gpu_only` that keeps what preempted requests had."""
    engines = [
        {"kind": "gpu_only", "keep_preempted_kv": True},
        {"kind": "vllm", "eager": True, "prefix_caching": True},
    ]
    starved = [each for each in EXPERIMENT["workloads"] if each["name"] == "kv_starved"]
    changes = {"engines": engines, "workloads": starved}
    return made(EXPERIMENT | changes, model_root, tmp_path_factory.mktemp("vllm_keeping"))


def made(experiment: dict[str, Any], model_root: Path, folder: Path) -> Run:
    config = folder / "beside.yaml"
    config.write_text(yaml.safe_dump(experiment | {"model": str(make_folder(model_root, kv_heads=2))}))
    answer = harness("run", "--config", config, "--out", folder / "runs", "--json", cwd=folder, timeout_s=500)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)
    (run,) = (folder / "runs").iterdir()
    return load_run(run)
