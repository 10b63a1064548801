"""One small simulated run, made by the product, and its bundle; tests spoil copies."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness.bundle import Bundled, make_bundle
from harness.checksums import CHECKSUMS_FILE, rendered, sha256_of
from harness.config import load_experiment
from harness.container import files_below, unpacked
from harness.progress import watcher_for
from harness.runner import run_experiment
from harness.terminal import console
from tests.harness.conftest import Call, call  # noqa: F401 - a fixture

__all__ = ["Call"]

EXPERIMENT = {
    "schema_version": 1,
    "name": "handed_over",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "llama-2-7b",
    "dtype": "float16",
    "budget": {"host_kv_tokens": 8192, "cpu_threads": 1, "max_batch": 4},
    "engines": ["apex"],
    "workloads": [{"kind": "long_output", "prompt": 40, "output": 6, "requests": 8}],
    "measure": {"warmup_requests": 1, "seed": 3, "draws": 1, "time_limit_s": 100},
    "slo": {"ttft_s": 2, "tpot_s": 0.2},
}


@dataclass(frozen=True)
class Forge:
    """A folder that a bundle was unpacked into, of which somebody changes something."""

    top: Path

    @property
    def cell(self) -> Path:
        [cell] = (self.top / "cells").iterdir()
        return cell

    def mend_hashes(self) -> None:
        sums = {path: sha256_of(source) for path, source in files_below(self.top) if path != CHECKSUMS_FILE}
        (self.top / CHECKSUMS_FILE).write_bytes(rendered(sums))


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("bundled")
    (here / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    experiment = load_experiment(str(here / "experiment.yaml"), environment={})
    outcome = run_experiment(experiment, here / "runs", watcher_for(console(stderr=True), quiet=True))
    assert outcome.exit_code == 0, outcome.warnings
    return outcome.run_dir


@pytest.fixture(scope="session")
def bundled(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    return make_bundle(run_dir, tmp_path_factory.mktemp("out") / "evidence.zip")


@pytest.fixture(scope="session")
def opened(bundled: Bundled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return unpacked(bundled.path, tmp_path_factory.mktemp("opened")).top


@pytest.fixture
def forge(opened: Path, tmp_path: Path) -> Forge:
    return Forge(Path(shutil.copytree(opened, tmp_path / opened.name)))
