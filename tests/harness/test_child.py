"""One process watched from outside, whatever it prints and wherever it was started."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.child import TAIL_BYTES, Ending, Progress, run_child
from harness.interrupts import Interrupts
from tests.harness.conftest import REPOSITORY


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


class Run:
    """Runs a program as if it were a cell's module; `progress` is what it reported."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.progress: list[Progress] = []
        self._folder = folder
        monkeypatch.setenv("PYTHONPATH", str(folder / "modules"))

    def __call__(self, program: str, time_limit_s: float = 30) -> Ending:
        modules = self._folder / "modules"
        modules.mkdir()
        (modules / "a_cell.py").write_text(f"import sys, os, time, json\n{program}\n")
        return run_child(self._folder, time_limit_s, self.progress.append, Interrupts(), "a_cell")


EVENT = '{"event": "progress", "done": 1, "total": 2, "time_s": 0.5}'


def test_a_flood_on_both_pipes_is_read_and_not_kept(run: Run) -> None:
    ending = run(
        "for _ in range(300):\n"
        "    sys.stderr.write('e' * 10_000)\n"
        "    sys.stdout.write('o' * 10_000)\n"
        f"print(); print('{EVENT}', flush=True)\n"
        "sys.stderr.write('\\nthe end'); sys.exit(5)"
    )
    assert ending.reason == "exited with code 5: the end"
    assert len(ending.last_words) == TAIL_BYTES
    assert run.progress == [Progress(1, 2, 0.5)]


def test_noise_is_no_progress(run: Run) -> None:
    ending = run(f"print('[]'); print('{{'); print('[' * 9000); print('null'); print('{EVENT}')")
    assert ending.reason is None
    assert run.progress == [Progress(1, 2, 0.5)]


def test_closed_pipes_are_no_end(run: Run) -> None:
    ending = run("os.close(1); os.close(2); time.sleep(0.5)")
    assert ending.reason is None
    assert ending.wall_s > 0.5


def test_where_a_process_hung_is_in_its_last_words(run: Run) -> None:
    ending = run("def waits_for_ever():\n    time.sleep(60)\nwaits_for_ever()", time_limit_s=2)
    assert ending.reason == "timed out: not done within measure.time_limit_s = 2 s"
    assert "in waits_for_ever" in ending.last_words


def test_files_in_the_users_folder_do_not_stand_in_for_modules(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("queue.py", "results.py", "harness.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    ending = run("import queue, results.store, harness.child")
    assert ending.reason is None, ending.last_words


def test_the_cell_runs_the_same_code_as_the_harness(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from a checkout that is not installed."""
    ending = run("import harness; sys.exit(harness.__file__)")
    assert ending.reason == f"exited with code 1: {REPOSITORY / 'harness' / '__init__.py'}"


# --- interrupts -------------------------------------------------------------------------------------------------------


def test_signals_are_counted_and_handlers_come_back() -> None:
    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with Interrupts() as interrupts:
        assert interrupts.count == 0
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.count == 1
        interrupts.count = 0
    assert {which: signal.getsignal(which) for which in before} == before


def test_after_an_interrupt_ctrl_c_stays_ignored() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_on_purpose_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)
