"""One tiny run that the product itself makes, in virtual time, and nights made from it by changes of known size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cell import run_cell
from harness.config import load_experiment
from harness.opening import manifest_of
from harness.plan import expand
from harness.tracking.recording import recorded
from results.history import History
from results.history_rows import Role
from results.schema import Label, Status
from results.store import RunFolder, write_text
from tests.harness.conftest import VALID, Call, call  # noqa: F401 - a fixture

RATE = "output_tokens_per_s_whole_run"
FIRST = date(2031, 3, 1)
ENGINES = ["gpu_only", {"kind": "static_partition", "host_share": 0.5}]
WORKLOADS = [{"kind": "batch", "batch": 24, "prompt": 16, "output": 4}]
# Within a percent, and the same in every test: nights are never quite alike.
JITTER = (0.0, 0.004, -0.003, 0.006, -0.005, 0.002, -0.007, 0.001, 0.005, -0.002, 0.003, -0.004, 0.007)

Make = Callable[..., Path]
__all__ = ["Call"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two engines, one workload of 24 requests, three repeats: as `harness run` does it, without a process per cell."""
    folder = tmp_path_factory.mktemp("made")
    values = VALID | {"name": "nightly", "engines": ENGINES, "workloads": WORKLOADS}
    values |= {"measure": {"repeats": 3, "seed": 0, "time_limit_s": 60, "draws": 0}}
    config = folder / "nightly.yaml"
    config.write_text(yaml.safe_dump(values))
    experiment = load_experiment(str(config))
    cells = expand(experiment, "sim")
    run = RunFolder.create(folder, experiment.name)
    run.write_manifest(manifest_of(experiment, cells, "sim", Label.SIMULATED, "harness run --config nightly.yaml"))
    for spec in cells:
        cell_dir = run.cell_dir(spec.cell_id)
        write_text(cell_dir / "spec.json", spec.to_json())
        run.write_cell_summary(run_cell(cell_dir))
    assert {cell.status for cell in run.write_run_summary().cells} == {Status.OK}
    return run.path


@pytest.fixture
def night(made: Path, tmp_path: Path) -> Make:
    """See `nights_from`."""
    return nights_from(made, tmp_path / "elsewhere")


def nights_from(made: Path, folder: Path) -> Make:
    """Makes copies without tables, as from other machines: run on the n-th day, with figures of some engines scaled."""

    def make(
        number: int,
        *,
        scaled: Mapping[str, float] | None = None,
        manifest: Mapping[str, Any] | None = None,
        cells: Callable[[dict[str, Any]], None] | None = None,
        name: str = "",
    ) -> Path:
        to = folder / (name or f"run-{number}")
        for path in made.glob("cells/*/summary.json"):
            copied = to / path.relative_to(made)
            copied.parent.mkdir(parents=True)
            cell = json.loads(path.read_text())
            factor = (scaled or {}).get(cell["engine"], 1.0) * (1 + JITTER[number % len(JITTER)])
            cell["metrics"][RATE] *= factor
            for key in ("ttft_s_mean", "tpot_s_mean"):
                cell["metrics"][key] /= factor
            if cells is not None:
                cells(cell)
            copied.write_text(json.dumps(cell))
        told = json.loads((made / "manifest.json").read_text())
        told["created_utc"] = f"{day(number)}T02:00:00+00:00"
        (to / "manifest.json").write_text(json.dumps(told | dict(manifest or {})))
        return to

    return make


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def added(db: Path, runs: Iterable[Path], role: Role = Role.NIGHT) -> Path:
    with History.opened(db, create=True) as history:
        for run in runs:
            history.add(recorded(run, role=role))
    return db


def day(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


def figures(run: Path, metric: str, engine: str) -> list[float]:
    """As the run's own summaries have them, by repeat."""
    cells = [json.loads(path.read_text()) for path in run.glob("cells/*/summary.json")]
    chosen = sorted((cell for cell in cells if cell["engine"] == engine), key=lambda cell: cell["repeat"])
    return [cell["metrics"][metric] for cell in chosen]


def copy(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))
