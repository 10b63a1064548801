"""One cell in a fresh process, watched from outside: progress on its stdout, a time limit, and how it ended in words.

Not here: what the process does (cell.py), or which cells there are (runner.py). The process leads a group of its own,
so that ending it ends whatever it started, and its crash is a result like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_S = 5.0  # between asking a process group to end and ending it
WAKE_S = 0.2  # how soon an exit is noticed when the pipe stays open
STDERR_FILE = "stderr.log"
ERROR_FILE = "error.txt"
TAIL_BYTES = 16_384
OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "std::bad_alloc", "can't allocate memory")


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int
    time_s: float  # on the cell's own clock, which is virtual in a simulation


@dataclass(frozen=True, slots=True)
class Ending:
    """How the process ended: no reason when it ended well."""

    reason: str | None
    wall_s: float


def run_child(
    cell_dir: Path, time_limit_s: float, on_progress: Callable[[Progress], None], module: str = "harness.cell"
) -> Ending:
    """Run `python -m module cell_dir` to its end. On failure the tail of its stderr is kept in error.txt."""
    started_s = time.monotonic()
    stderr_path = cell_dir / STDERR_FILE
    with stderr_path.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(cell_dir)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        in_time = _follow(process, started_s + time_limit_s, on_progress)
    finally:
        _end_group(process)
    tail = _tail(stderr_path)
    stderr_path.unlink()
    reason = None if in_time and process.returncode == 0 else _reason(process.returncode, in_time, time_limit_s, tail)
    if reason is not None:
        (cell_dir / ERROR_FILE).write_text(f"{reason}\n\n{tail}", encoding="utf-8")
    return Ending(reason, time.monotonic() - started_s)


def _follow(process: subprocess.Popen[bytes], deadline_s: float, on_progress: Callable[[Progress], None]) -> bool:
    """Pass progress on until the process ends; False when the time limit comes first."""
    for line in _lines(process, deadline_s):
        if line is None:
            return False
        progress = _progress(line)
        if progress:
            on_progress(progress)
    return True


def _lines(process: subprocess.Popen[bytes], deadline_s: float) -> Iterator[bytes | None]:
    """Lines of stdout until the process has ended; None once at the deadline.

    An open pipe is no proof of life: something that the process started may hold it, so the process is polled too.
    """
    assert process.stdout is not None
    with process.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        pending = b""
        is_open = True
        while True:
            if time.monotonic() >= deadline_s:
                yield None
                return
            if is_open and selector.select(WAKE_S):
                chunk = os.read(pipe.fileno(), 65_536)
                is_open = bool(chunk)
                *whole, pending = (pending + chunk).split(b"\n")
                yield from whole
            elif process.poll() is not None:
                return
            elif not is_open:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(WAKE_S)


def _progress(line: bytes) -> Progress | None:
    """Anything else that a library prints on stdout is not ours to read."""
    try:
        event: Any = json.loads(line)
        if event["event"] == "progress":
            return Progress(int(event["done"]), int(event["total"]), float(event["time_s"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and everything it started: asked first, then made to."""
    try:
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    finally:  # also when the user presses Ctrl-C a second time
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, which)


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")


def _reason(returncode: int, in_time: bool, time_limit_s: float, tail: str) -> str:
    if not in_time:
        return f"timed out: not done within measure.time_limit_s = {time_limit_s:g} s"
    last_line = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")
    if any(sign in last_line for sign in OUT_OF_MEMORY):
        return f"out of memory: {last_line}"
    if returncode == -signal.SIGKILL:
        return "killed by SIGKILL, most often the system's answer to running out of memory"
    how = f"crashed with {_signal_name(-returncode)}" if returncode < 0 else f"exited with code {returncode}"
    return f"{how}: {last_line}" if last_line else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
