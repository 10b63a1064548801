"""The process of an engine: started, written to and read line by line, asked to end and made to.

Every line is a JSON object. What the process writes to its stderr is a log, whose last line is quoted when it ends by
itself. Not here: what the lines mean (adapter.py), and the other end (host.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

END_WITHIN_S = 10.0
REASON_WITHIN_S = 2.0  # once its end has shown, for the reason and the exit code to follow
READ_BYTES = 1 << 20
LAST_WORDS_BYTES = 4000
QUOTED_BYTES = 80


class EngineProcessError(RuntimeError):
    """The engine's process could not be started, or ended by itself; with its last words."""


class Child:
    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._log = log
        self._pending = b""
        self._inbox: deque[dict[str, Any]] = deque()
        self._has_ended = False  # its end of the pipe is closed
        with open(log, "wb") as stderr:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environment
                )
            except OSError as error:
                raise EngineProcessError(f"{name}: {command[0]} cannot be started: {error}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def send(self, command: Mapping[str, Any]) -> None:
        try:
            self._to.write(json.dumps(command, separators=(",", ":")).encode() + b"\n")
            self._to.flush()
        except BrokenPipeError:
            raise self.ended() from None

    def next(self, wait_s: float) -> dict[str, Any] | None:
        """The next message, waited for so long at most."""
        if not self._inbox:
            self._read(wait_s)
        if self._inbox:
            return self._inbox.popleft()
        if self._has_ended:
            raise self.ended()
        return None

    def ended(self, reason: str | None = None) -> EngineProcessError:
        """Why: as it says itself, here or in what is still in the pipe, or else its last words."""
        deadline_s = time.monotonic() + REASON_WITHIN_S
        while reason is None and not self._has_ended and (left_s := deadline_s - time.monotonic()) > 0:
            self._read(left_s)
        reason = reason or next((message["fatal"] for message in self._inbox if "fatal" in message), None)
        return EngineProcessError(f"{self._name}: {reason or self.last_words()}")

    def last_words(self) -> str:
        with open(self._log, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "none")
        return f"its process {self._state()}; last words: {last}"

    def close(self) -> None:
        """Asked by closing its input, then killed. What it still says is read, or it could not come to an end."""
        with contextlib.suppress(BrokenPipeError):
            self._to.close()
        deadline_s = time.monotonic() + END_WITHIN_S
        while not self._has_ended and self._waited_for(deadline_s - time.monotonic()):
            self._has_ended = not os.read(self._from.fileno(), READ_BYTES)
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._from.close()

    def _read(self, wait_s: float) -> None:
        """Whole lines that have come in, at the latest after `wait_s`."""
        if self._has_ended or not self._waited_for(wait_s):
            return
        chunk = os.read(self._from.fileno(), READ_BYTES)
        self._has_ended = not chunk
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        self._inbox.extend(map(self._message, lines))

    def _waited_for(self, wait_s: float) -> bool:
        return bool(select.select([self._from], [], [], max(0.0, wait_s))[0])

    def _message(self, line: bytes) -> dict[str, Any]:
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            text = line[:QUOTED_BYTES].decode(errors="replace")
            raise EngineProcessError(f"{self._name}: its process wrote {text!r}, which is no message") from None
        return message

    def _state(self) -> str:
        try:
            code = self._process.wait(REASON_WITHIN_S if self._has_ended else 0)
        except subprocess.TimeoutExpired:
            return "is still running"
        return f"ended with {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
