"""`harness` as its users run it, in a folder of its own, with plugins installed that nobody would wish for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from results.query import Run, load_run
from tests.e2e.commands import Answer, harness

PATIENCE_S = 400.0  # several cells in one command

SMALL: dict[str, Any] = {
    "schema_version": 1,
    "name": "plugins",
    "backend": "sim",
    "hardware": "t4_g4dn_4xlarge",
    "model": "tiny-1m",
    "dtype": "float16",
    "budget": {"accel_kv_tokens": 4096, "cpu_threads": 1, "max_batch": 8},
    "workloads": [{"kind": "batch", "batch": 4, "prompt": 16, "output": 12}],
    "measure": {"repeats": 1, "seed": 0, "time_limit_s": 60},
}


@dataclass(frozen=True, slots=True)
class Home:
    """A folder to work in, and the folder `site` beside it in which plugins are installed."""

    folder: Path

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def __call__(self, *arguments: object) -> Answer:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(self.site))
            return harness(*arguments, cwd=self.folder, timeout_s=PATIENCE_S)

    def config(self, *engines: object, **changes: Any) -> Path:
        path = self.folder / "experiment.yaml"
        path.write_text(yaml.safe_dump(SMALL | {"engines": list(engines)} | changes))
        return path

    def the_run(self) -> Run:
        (path,) = (self.folder / "runs").iterdir()
        return load_run(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    found = Home(tmp_path_factory.mktemp("home"))
    found.site.mkdir()
    return found
