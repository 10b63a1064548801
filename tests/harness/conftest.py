"""A small valid experiment to spoil in one place at a time, and the command line called as a user calls it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]

VALID: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "tiny-1m",
    "dtype": "float16",
    "budget": {"accel_kv_tokens": 4096, "host_kv_tokens": 8192, "cpu_threads": 1, "max_batch": 8},
    "engines": ["gpu_only"],
    "workloads": [{"kind": "batch", "batch": 2, "prompt": 16, "output": 4}],
    "measure": {"repeats": 1, "seed": 0, "time_limit_s": 60},
}


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Call = Callable[..., Answer]
Write = Callable[..., Path]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`harness ...` in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # for the cells' processes

    def run(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Answer(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """The valid experiment with top-level keys replaced, as a file. A value of None leaves the key out."""

    def to_file(**changes: Any) -> Path:
        values = copy.deepcopy(VALID) | changes
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        return path

    return to_file


@pytest.fixture(autouse=True)
def _no_overrides_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith("HARNESS_SET_"):
            monkeypatch.delenv(name)
