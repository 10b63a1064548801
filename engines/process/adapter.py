"""An engine in a process, and an environment, of its own: this end of the wire (the other one is host.py).

Tokens are stamped when they come in, as any client would; what the process says of its own steps is recorded beside
them. Requests that are due together are sent together, so that the engine sees a burst as a burst.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from engines.core.adapter import Delivery, EngineStep, Failure, Site, Submission
from engines.core.types import Refusal

HOST = Path(__file__).with_name("host.py")
LOG_FILE = "engine.log"
LONGEST_WAIT_S = 20e-3  # for something to come in; the driver's clock is read at least so often
END_WITHIN_S = 10.0
READ_BYTES = 1 << 20
LAST_WORDS_BYTES = 4000


class EngineProcessError(RuntimeError):
    """The engine's process could not be started, or ended by itself; with its last words."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What is started: a Python, the script that opens the engine, what it is told, and additions to its environment.

    `settings` are joined by what every worker is told of its site (`settings_of`).
    """

    name: str
    python: str
    script: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    start_limit_s: float = 600.0


class ProcessAdapter:
    def __init__(self, worker: Worker, site: Site) -> None:
        self._worker = worker
        self._site = site
        self._cores = _cores(site)
        self._driver_cores: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._pending = b""
        self._messages: deque[dict[str, Any]] = deque()
        self._unsent: list[Submission] = []
        self._in_flight: set[int] = set()

    def start(self) -> dict[str, object]:
        self._log = open(self._site.scratch / LOG_FILE, "wb")  # noqa: SIM115 - closed in close()
        environment = os.environ | dict(self._worker.environment)
        environment.pop("PYTHONPATH", None)  # ours is not theirs
        try:
            self._process = subprocess.Popen(
                [self._worker.python, "-P", str(HOST), str(self._worker.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
            )
        except OSError as error:
            raise EngineProcessError(f"{self._worker.name}: {self._worker.python} cannot be started: {error}") from None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._send(settings_of(self._site) | {"cores": self._cores} | dict(self._worker.settings))
        resolved = self._ready()
        self._leave_cores()
        return resolved

    def submit(self, submission: Submission) -> Refusal | None:
        self._unsent.append(submission)
        self._in_flight.add(submission.request_id)
        return None

    @property
    def busy(self) -> bool:
        return bool(self._in_flight)

    def poll(self, now_s: float) -> Delivery | None:
        if self._unsent:
            self._send({"submit": [_request(submission) for submission in self._unsent]})
            self._unsent.clear()
        if not self._messages:
            self._receive(self._patience_s(now_s))
        return self._delivery(self._messages.popleft()) if self._messages else None

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        if self._log is not None:
            self._log.close()
        if self._driver_cores:
            os.sched_setaffinity(0, self._driver_cores)
            self._driver_cores = set()

    # --- the wire ----------------------------------------------------------------------------------------------------

    def _send(self, command: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command, separators=(",", ":")).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _receive(self, wait_s: float) -> None:
        """Whole lines that have come in, at the latest after `wait_s`."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        if not select.select([pipe], [], [], wait_s)[0]:
            return
        chunk = os.read(pipe, READ_BYTES)
        if not chunk:
            raise self._ended()
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        self._messages.extend(map(json.loads, lines))

    def _ready(self) -> dict[str, object]:
        deadline_s = time.monotonic() + self._worker.start_limit_s
        while not self._messages:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise EngineProcessError(
                    f"{self._worker.name}: not ready within start_limit_s = {self._worker.start_limit_s:g} s; "
                    f"{self._last_words()}"
                )
            self._receive(left_s)
        message = self._messages.popleft()
        if "ready" not in message:
            raise self._ended(message.get("fatal"))
        resolved: dict[str, object] = message["ready"]
        return resolved

    def _patience_s(self, now_s: float) -> float:
        """Nobody is waited for past the next arrival."""
        next_s = self._site.next_arrival_s()
        return LONGEST_WAIT_S if next_s is None else min(LONGEST_WAIT_S, max(0.0, next_s - now_s))

    def _delivery(self, message: dict[str, Any]) -> Delivery:
        if "fatal" in message:
            raise self._ended(message["fatal"])
        now_s = self._site.clock.now()
        if "failed" in message:
            failed = [Failure(*entry) for entry in message["failed"]]
            self._in_flight.difference_update(failure.request_id for failure in failed)
            return Delivery(now_s, (), (), failed=failed)
        step = message["step"]
        offset_s = time.perf_counter() - now_s  # both ends read the machine's one monotonic clock
        begun_s, ended_s = step["begun_s"] - offset_s, step["ended_s"] - offset_s
        if "facts" in step:
            self._site.on_step(EngineStep(begun_s, ended_s, **step["facts"]))
        finished = step.get("finished", ())
        self._in_flight.difference_update(finished)
        return Delivery(
            now_s,
            step["ids"],
            step["tokens"],
            finished,
            step.get("admitted", ()),
            step.get("preempted", ()),
            scheduled_s=begun_s,
        )

    # --- how it goes -------------------------------------------------------------------------------------------------

    def _leave_cores(self) -> None:
        """The driver keeps off the engine's cores where there are others: it is no part of the engine."""
        others = os.sched_getaffinity(0) - set(self._cores)
        if self._cores and others:
            self._driver_cores = os.sched_getaffinity(0)
            os.sched_setaffinity(0, others)

    def _ended(self, reason: str | None = None) -> EngineProcessError:
        if reason is None:
            self._drain()
            reason = next((message["fatal"] for message in self._messages if "fatal" in message), None)
        return EngineProcessError(f"{self._worker.name}: {reason or self._last_words()}")

    def _drain(self) -> None:
        """A reason may still be in the pipe."""
        try:
            while True:
                self._receive(0.2)
        except (EngineProcessError, RecursionError):
            return

    def _last_words(self) -> str:
        assert self._process is not None
        code = self._process.poll()
        state = "still running" if code is None else f"ended with {code}"
        text = (self._site.scratch / LOG_FILE).read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return f"its process {state}; last words: {lines[-1] if lines else 'none'}"


def settings_of(site: Site) -> dict[str, Any]:
    """What every worker is told: where the model is, and the envelope."""
    return {
        "backend": site.backend,
        "model": str(site.model_folder()),
        "dtype": site.dtype,
        "accel_kv_tokens": site.accel_kv_tokens,
        "accel_page_tokens": site.accel_page_tokens,
        "accel_memory_bytes": site.accel_memory_bytes,
        "max_batch": site.max_batch,
        "max_batch_tokens": site.max_batch_tokens,
        "longest_request_tokens": site.longest_request_tokens,
    }


def _cores(site: Site) -> list[int]:
    """On `cpu` the engine is the emulated accelerator, on as many cores; on a GPU it may use what there is."""
    return sorted(os.sched_getaffinity(0))[: site.accel_cores] if site.backend == "cpu" else []


def _request(submission: Submission) -> dict[str, Any]:
    return {
        "id": submission.request_id,
        "prompt": list(map(int, submission.token_ids)),
        "new": submission.max_new_tokens,
        "stop": sorted(submission.stop_ids),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asked by closing its input, then made to."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def found_python(asked: str, beside: Sequence[Path]) -> str | None:
    """The Python asked for, or the first there is of `beside`; None where there is none."""
    if asked:
        path = Path(asked).expanduser()
        return str(path.absolute()) if path.is_file() else None
    return next((str(path.absolute()) for path in beside if path.is_file()), None)
