"""Two synthetic runs that are equal, and changes of known size to make to the second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from results.schema import Label
from tests.harness.conftest import Call, call  # noqa: F401 - a fixture
from tests.results.run_folders import Shape, build

SHAPE = Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=6, requests=4, tokens=3, steps=5)

Change = Callable[[dict[str, Any]], None]
__all__ = ["Call"]


def change_cells(run_dir: Path, change: Change, **which: object) -> None:
    """Every cell whose summary has these entries."""
    for path in run_dir.glob("cells/*/summary.json"):
        cell = json.loads(path.read_text())
        if all(cell[key] == value for key, value in which.items()):
            change(cell)
            path.write_text(json.dumps(cell))


def scale(run_dir: Path, factors: Mapping[str, float], noise: float = 0.0, **which: object) -> None:
    """Multiply metrics; odd repeats by a little more, even ones by as much less."""

    def change(cell: dict[str, Any]) -> None:
        sign = 1 if cell["repeat"] % 2 else -1
        for key, factor in factors.items():
            cell["metrics"][key] *= factor * (1 + sign * noise)

    change_cells(run_dir, change, **which)


def change_manifest(run_dir: Path, changes: Mapping[str, Any]) -> None:
    """By dotted keys."""
    path = run_dir / "manifest.json"
    manifest = json.loads(path.read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        inner = manifest
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    path.write_text(json.dumps(manifest))


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return build(tmp_path / "a", SHAPE)


@pytest.fixture
def b(a: Path, tmp_path: Path) -> Path:
    """The same figures, elsewhere."""
    return Path(shutil.copytree(a, tmp_path / "copied from elsewhere"))


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    return build(tmp_path / "s", Shape(**{**_fields(SHAPE), "label": Label.SIMULATED}))


def _fields(shape: Shape) -> dict[str, Any]:
    return {name: getattr(shape, name) for name in Shape.__slots__}
