"""However a worker ends, it is said why in one line, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.process import child
from engines.process.adapter import HOST, ProcessAdapter
from engines.process.child import EngineProcessError
from tests.process.workers import ECHO, adapter, deliveries, echo, is_running, open_files, request, wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
TELLS_PID = "import os, sys, time\nopen({path!r}, 'w').write(str(os.getpid()))\n"


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before


@pytest.fixture
def _killed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "END_WITHIN_S", 0.2)


def started(engine: ProcessAdapter) -> int:
    """The worker's process id."""
    pid = engine.start()["pid"]
    assert isinstance(pid, int)
    return pid


def why_not_started(tmp_path: Path, source: str, **more: object) -> str:
    """Nobody calls close() on what did not start."""
    path = tmp_path / "pid"
    engine = adapter(tmp_path, TELLS_PID.format(path=str(path)) + source, **more)  # type: ignore[arg-type]
    with pytest.raises(EngineProcessError) as caught:
        engine.start()
    assert not is_running(int(path.read_text()))
    assert {entry.name for entry in tmp_path.iterdir()} == {"pid", "worker.py", "engine.log"}
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- at the start -----------------------------------------------------------------------------------------------------


def test_a_start_that_fails_says_what_was_raised(tmp_path: Path) -> None:
    source = "def open_engine(settings):\n    raise ValueError('no weights:\\n 3 files are missing')\n"
    assert why_not_started(tmp_path, source) == "toy: ValueError: no weights: 3 files are missing"


def test_a_start_that_ends_the_process_says_how_and_its_last_words(tmp_path: Path) -> None:
    source = "print('reading\\nout of luck\\n', file=sys.stderr, flush=True)\nos._exit(7)\n"
    assert why_not_started(tmp_path, source) == "toy: its process ended with 7; last words: out of luck"


def test_a_start_without_a_word(tmp_path: Path) -> None:
    source = f"os.kill(os.getpid(), {int(signal.SIGSEGV)})\n"
    assert why_not_started(tmp_path, source) == "toy: its process was killed by SIGSEGV; last words: none"


@pytest.mark.usefixtures("_killed_soon")
def test_a_start_that_never_ends(tmp_path: Path) -> None:
    source = "print('compiling', flush=True)\ntime.sleep(3600)\n"
    why = why_not_started(tmp_path, source, start_limit_s=1.5)
    assert why == "toy: not ready within start_limit_s = 1.5 s; its process is still running; last words: compiling"


def test_a_python_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(EngineProcessError, match=r"^toy: /no/python cannot be started: "):
        adapter(tmp_path, ECHO, python="/no/python").start()
    assert {entry.name for entry in tmp_path.iterdir()} == {"worker.py", "engine.log"}


def test_a_python_that_talks_before_it_is_asked(tmp_path: Path) -> None:
    """As one whose start-up files print something."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "welcome!"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(EngineProcessError, match=r"^toy: its process wrote 'welcome!', which is no message$"):
        adapter(tmp_path, ECHO, python=str(python)).start()


# --- in between -------------------------------------------------------------------------------------------------------


def why_it_broke_off(tmp_path: Path, does: str) -> str:
    """It `does` so at its third step."""
    broken = f"""
    def step(self):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 3:
            {does}
        return super().step()
    """
    engine = adapter(tmp_path, echo(broken))
    pid = started(engine)
    with pytest.raises(EngineProcessError) as caught:
        deliveries(engine, [request(1, [5], 9)])
    engine.close()
    assert not is_running(pid)
    return str(caught.value)


def test_a_step_that_raises_is_told(tmp_path: Path) -> None:
    assert why_it_broke_off(tmp_path, "raise MemoryError('2 GiB more were needed')") == (
        "toy: MemoryError: 2 GiB more were needed"
    )
    assert "in step" in (tmp_path / "engine.log").read_text(), "the log has the traceback"


def test_a_process_that_ends_in_between(tmp_path: Path) -> None:
    does = "print('CUDA error: lost', file=sys.stderr, flush=True); os._exit(3)"
    assert why_it_broke_off(tmp_path, does) == "toy: its process ended with 3; last words: CUDA error: lost"


def test_a_process_that_is_killed_in_between(tmp_path: Path) -> None:
    does = f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    assert why_it_broke_off(tmp_path, does) == "toy: its process was killed by SIGKILL; last words: none"


def test_a_process_that_is_gone_when_it_is_needed(tmp_path: Path) -> None:
    engine = adapter(tmp_path, ECHO)
    pid = started(engine)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_running(pid), "the worker's end")
    with pytest.raises(EngineProcessError, match=r"^toy: its process was killed by SIGKILL; last words: none$"):
        deliveries(engine, [request(1, [5], 9)])
    engine.close()


# --- at the end -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_killed_soon")
def test_a_close_that_hangs_is_cut_short(tmp_path: Path) -> None:
    engine = adapter(tmp_path, echo("def close(self):\n    time.sleep(3600)"))
    pid = started(engine)
    engine.close()
    assert not is_running(pid)
    engine.close()  # a second one changes nothing


def test_an_engine_in_the_middle_of_a_step_still_ends_in_order(tmp_path: Path) -> None:
    """More than the pipe holds is on its way to a driver that reads no more; it is asked to end all the same."""
    mark = tmp_path / "closed"
    talker = f"""
    def step(self):
        return super().step() | {{"tokens": [1] * 500_000, "ids": [1] * 500_000}}

    def close(self):
        open({str(mark)!r}, "w").close()
    """
    engine = adapter(tmp_path, echo(talker))
    pid = started(engine)
    engine.submit(request(1, [5], 1_000_000))
    engine.poll(0.0)
    engine.close()
    assert mark.exists()
    assert not is_running(pid)


DRIVER = """
import sys, time
from pathlib import Path
from tests.process.workers import adapter, request
engine = adapter(Path(sys.argv[1]), Path(sys.argv[2]).read_text())
print(engine.start()["pid"], flush=True)
if sys.argv[3] == "busy":
    engine.submit(request(1, [5], 1_000_000))
    while True:
        engine.poll(0.0)
time.sleep(3600)
"""
STUCK = echo("def step(self):\n    time.sleep(3600)") + "\nimport __main__\n__main__.ORPHANED_FOR_S = 0.1\n"


@pytest.mark.parametrize(
    ("source", "state"), [(ECHO, "idle"), (ECHO, "busy"), (STUCK, "busy")], ids=["idle", "busy", "stuck"]
)
def test_a_worker_does_not_outlive_a_driver_that_is_killed(tmp_path: Path, source: str, state: str) -> None:
    (tmp_path / "source").write_text(source)
    arguments = [sys.executable, "-c", DRIVER, str(tmp_path), str(tmp_path / "source"), state]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        assert is_running(pid)
        driver.kill()
    wait_for(lambda: not is_running(pid), "the worker's end")


def test_a_driver_that_is_gone_before_the_engine_is_ready(tmp_path: Path) -> None:
    """Settings and the end of them come in at once; the engine is opened, and ends."""
    script = tmp_path / "worker.py"
    script.write_text(ECHO)
    ended = subprocess.run(
        [sys.executable, "-P", str(HOST), str(script)],
        input=json.dumps({"dtype": "float32"}).encode() + b"\n",
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert list(json.loads(ended.stdout)) == ["ready"]


def test_a_driver_that_says_nothing(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-P", str(HOST), "x"], input=b"", capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
