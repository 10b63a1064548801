"""A whole run with an engine in a process of its own that dies in the middle: the cell failed, and says of what."""

from __future__ import annotations

from pathlib import Path

from tests.faults.conftest import Harness, healthy, the_run
from tests.plugins.installed import install_engine
from tests.process.workers import echo

PLUGIN = """
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Engine:
    runs_model = True

    def problems(self, backend, paced):
        return []

    def open(self, site):
        from engines.process.adapter import ProcessAdapter, Worker

        return ProcessAdapter(Worker("dying", sys.executable, Path(__file__).with_name("worker.py")), site)
"""
DIES = """
def step(self):
    self.steps = getattr(self, "steps", 0) + 1
    if self.steps == 4:
        print("CUDA error: an illegal memory access", file=sys.stderr, flush=True)
        os._exit(5)
    return super().step()
"""


def test_the_cell_says_how_it_ended(tmp_path: Path) -> None:
    install_engine(tmp_path / "plugins", "dying", PLUGIN)
    (tmp_path / "plugins" / "worker.py").write_text(echo(DIES))
    harness = Harness(tmp_path)
    config = harness.config(["dying", healthy("after")], backend="cpu", emulation={"mode": "native"})
    answer = harness("run", "--config", config, "--out", "out", "--quiet")
    assert answer.code == 4, answer.err
    run = the_run(tmp_path / "out")
    dying, after = run.cells
    assert (str(dying.status), str(after.status)) == ("failed", "ok")
    reason = "dying: its process ended with 5; last words: CUDA error: an illegal memory access"
    assert reason in str(dying.error)
    folder = run.cell_dir(dying)
    assert "CUDA error" in (folder / "engine.log").read_text()
    assert not list(folder.glob("engine-*")), "its files are gone"
