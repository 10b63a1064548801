"""An engine in a process, and an environment, of its own: this end of the wire (the other one is host.py).

Tokens are stamped when they come in, as any client would; what the process says of its own steps is recorded beside
them. Requests that are due together are sent together, so that the engine sees a burst as a burst.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from engines.core.adapter import Delivery, EngineStep, Failure, Site, Submission
from engines.core.types import Refusal
from engines.process.child import Child, EngineProcessError

HOST = Path(__file__).with_name("host.py")
LOG_FILE = "engine.log"
LONGEST_WAIT_S = 20e-3  # for something to come in; the driver's clock is read at least so often


@dataclass(frozen=True, slots=True)
class Worker:
    """What is started: a Python, the script that opens the engine, what it is told, and additions to its environment.

    `settings` are joined by what every worker is told of its site (`settings_of`), and by `files`: a folder for what it
    writes, in `files_in` or else in the cell's own, that is removed when the process has ended, however that was.
    """

    name: str
    python: str
    script: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    start_limit_s: float = 600.0
    files_in: Path | None = None


class ProcessAdapter:
    def __init__(self, worker: Worker, site: Site) -> None:
        self._worker = worker
        self._site = site
        self._cores = _cores(site)
        self._driver_cores: set[int] = set()
        self._child: Child | None = None
        self._files: Path | None = None
        self._unsent: list[Submission] = []
        self._in_flight: set[int] = set()

    def start(self) -> dict[str, object]:
        try:
            self._open()
            resolved = self._ready()
        except BaseException:
            self.close()  # nobody else closes what has not started
            raise
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
        child = self._running()
        if self._unsent:
            child.send({"submit": [_request(submission) for submission in self._unsent]})
            self._unsent.clear()
        message = child.next(self._patience_s(now_s))
        return None if message is None else self._delivery(message)

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()
        if self._files is not None:
            shutil.rmtree(self._files, ignore_errors=True)
        if self._driver_cores:
            os.sched_setaffinity(0, self._driver_cores)
            self._driver_cores = set()

    # --- the process -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        worker, site = self._worker, self._site
        self._files = Path(mkdtemp(prefix="engine-", dir=worker.files_in or site.scratch)).absolute()
        environment = os.environ | dict(worker.environment)
        environment.pop("PYTHONPATH", None)  # ours is not theirs
        command = [worker.python, "-P", str(HOST), str(worker.script)]
        self._child = Child(worker.name, command, environment, site.scratch / LOG_FILE)
        told = {"cores": self._cores, "files": str(self._files)}
        self._child.send(settings_of(site) | told | dict(worker.settings))

    def _ready(self) -> dict[str, object]:
        child, limit_s = self._running(), self._worker.start_limit_s
        deadline_s = time.monotonic() + limit_s
        while (message := child.next(deadline_s - time.monotonic())) is None:
            if time.monotonic() >= deadline_s:
                raise EngineProcessError(
                    f"{self._worker.name}: not ready within start_limit_s = {limit_s:g} s; {child.last_words()}"
                )
        if "ready" not in message:
            raise child.ended(message.get("fatal"))
        resolved: dict[str, object] = message["ready"]
        return resolved

    def _running(self) -> Child:
        assert self._child is not None, "start() comes first, and nothing after close()"
        return self._child

    def _leave_cores(self) -> None:
        """The driver keeps off the engine's cores where there are others: it is no part of the engine."""
        others = os.sched_getaffinity(0) - set(self._cores)
        if self._cores and others:
            self._driver_cores = os.sched_getaffinity(0)
            os.sched_setaffinity(0, others)

    # --- what it says ------------------------------------------------------------------------------------------------

    def _patience_s(self, now_s: float) -> float:
        """Nobody is waited for past the next arrival."""
        next_s = self._site.next_arrival_s()
        return LONGEST_WAIT_S if next_s is None else min(LONGEST_WAIT_S, max(0.0, next_s - now_s))

    def _delivery(self, message: dict[str, Any]) -> Delivery:
        if "fatal" in message:
            raise self._running().ended(message["fatal"])
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


def found_python(asked: str, beside: Sequence[Path]) -> str | None:
    """The Python asked for, or the first there is of `beside`; None where there is none."""
    if asked:
        path = Path(asked).expanduser()
        return str(path.absolute()) if path.is_file() else None
    return next((str(path.absolute()) for path in beside if path.is_file()), None)
