"""One cell in a fresh process, watched from outside: progress on its stdout, a time limit, and how it ended in words.

Not here: what the process does (cell.py), which cells there are (runner.py), what is kept on disk (runner.py). The
process leads a group of its own, so that ending it ends whatever it started, and its crash is a result like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

from harness.epitaph import reason_for
from harness.interrupts import Interrupts

GRACE_S = 5.0  # between asking a process group to end and ending it
WAKE_S = 0.2  # how soon a deadline or an interrupt is noticed while the process is silent
GIVE_UP_S = 30.0  # a process that the system cannot end (stuck in a driver) must not take the run with it
TAIL_BYTES = 16_384
LINE_BYTES = 65_536  # a longer line is no progress of ours
LARGEST_PIPE_BYTES = 1 << 20
CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int
    time_s: float  # on the cell's own clock, which is virtual in a simulation


@dataclass(frozen=True, slots=True)
class Ending:
    """How the process ended: no reason when it ended well. `last_words` is the tail of its stderr."""

    reason: str | None
    wall_s: float
    last_words: str = ""
    interrupted: bool = False


class _Cut(Enum):
    """Why the process was not left to end by itself."""

    TIME_LIMIT = "time limit"
    INTERRUPT = "interrupt"


def run_child(
    cell_dir: Path,
    time_limit_s: float,
    on_progress: Callable[[Progress], None],
    interrupts: Interrupts,
    module: str = "harness.cell",
) -> Ending:
    """Run `python -m module cell_dir` to its end, or to the time limit, or to the user's."""
    started_s = time.monotonic()
    process = subprocess.Popen(
        # -P: a file of the user's that is called like a module of ours, or of Python's, is none of the cell's business.
        [sys.executable, "-P", "-X", "faulthandler", "-m", module, str(cell_dir.resolve())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    cut: _Cut | None = None
    with _Output(process) as output:
        try:
            cut = _follow(process, output, started_s + time_limit_s, on_progress, interrupts)
        finally:
            _end_group(process, cut, lambda: interrupts.count > 1)
        _pass_on(output.rest(), on_progress)
        last_words = output.last_words
    reason = None
    if cut is _Cut.TIME_LIMIT:
        reason = f"timed out: not done within measure.time_limit_s = {time_limit_s:g} s"
    elif cut is _Cut.INTERRUPT:
        reason = "interrupted"
    elif process.returncode != 0:
        reason = reason_for(process.returncode, last_words)
    return Ending(reason, time.monotonic() - started_s, last_words, cut is _Cut.INTERRUPT)


def _environment() -> dict[str, str]:
    """A checkout that is not installed was found through the working folder, where the cell does not look."""
    if not (CHECKOUT / "pyproject.toml").is_file():
        return dict(os.environ)
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _follow(
    process: subprocess.Popen[bytes],
    output: _Output,
    deadline_s: float,
    on_progress: Callable[[Progress], None],
    interrupts: Interrupts,
) -> _Cut | None:
    """Pass progress on until the process ends; else say what came first.

    An open pipe is no proof of life: something that the process started may hold it, so the process is polled too.
    """
    while process.poll() is None:
        if interrupts.count:
            return _Cut.INTERRUPT
        if time.monotonic() >= deadline_s:
            return _Cut.TIME_LIMIT
        if not output.is_open:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WAKE_S)
        _pass_on(output.lines(WAKE_S), on_progress)
    return None


def _pass_on(lines: Iterable[bytes], on_progress: Callable[[Progress], None]) -> None:
    for line in lines:
        progress = _progress(line)
        if progress:
            on_progress(progress)


class _Output:
    """Both pipes of a process: whole lines of its stdout, the last words of its stderr. Bounded, whatever it prints."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdout, self._stderr = process.stdout, process.stderr
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)
        self._pending = b""
        self._tail = b""

    @property
    def is_open(self) -> bool:
        return bool(self._selector.get_map())

    @property
    def last_words(self) -> str:
        return self._tail.decode("utf-8", errors="replace")

    def lines(self, wait_s: float) -> Iterator[bytes]:
        """What has come in on stdout by now; waits at most `wait_s` for anything at all."""
        if not self.is_open:
            return
        for key, _ in self._selector.select(wait_s):
            pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]
            chunk = os.read(pipe.fileno(), LINE_BYTES)
            if not chunk:
                self._selector.unregister(pipe)
            elif pipe is self._stderr:
                self._tail = (self._tail + chunk)[-TAIL_BYTES:]
            else:
                *whole, pending = (self._pending + chunk).split(b"\n")
                self._pending = pending if len(pending) <= LINE_BYTES else b""
                yield from whole

    def rest(self) -> Iterator[bytes]:
        """What the ended process left in its pipes; what somebody else still holds open is not waited for."""
        for _ in range(LARGEST_PIPE_BYTES // LINE_BYTES):
            if not self.is_open or not self._selector.select(0):
                return
            yield from self.lines(0)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._stdout.close()
        self._stderr.close()


def _progress(line: bytes) -> Progress | None:
    """Anything else that a library prints on stdout is not ours to read."""
    try:
        event: Any = json.loads(line)
        if event["event"] == "progress":
            return Progress(int(event["done"]), int(event["total"]), float(event["time_s"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def _end_group(process: subprocess.Popen[bytes], cut: _Cut | None, is_hurried: Callable[[], bool]) -> None:
    """End the process and everything it started: asked first, then made to."""
    try:
        if process.poll() is None:
            _ask_to_end(process, cut)
            deadline_s = time.monotonic() + GRACE_S
            while process.poll() is None and time.monotonic() < deadline_s and not is_hurried():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(WAKE_S)
    finally:
        _signal_group(process, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GIVE_UP_S)


def _ask_to_end(process: subprocess.Popen[bytes], cut: _Cut | None) -> None:
    """A process that hangs is asked by the signal on which Python says where it is; that must leave no core file."""
    if cut is not _Cut.TIME_LIMIT:
        _signal_group(process, signal.SIGTERM)
        return
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(OSError):
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
    _signal_group(process, signal.SIGABRT)


def _signal_group(process: subprocess.Popen[bytes], which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, which)
