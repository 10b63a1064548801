"""The far end of the wire: runs an engine in a Python of its own. Standard library only, so that any environment can.

    python -P host.py WORKER.py

JSON lines come in on stdin - the settings first, then commands - and what happens goes out on stdout; whatever else the
engine prints goes to stderr. WORKER.py defines `open_engine(settings)`, which returns an object with

    resolved                  what the engine really got, for the fairness table
    busy                      whether requests are in it
    submit(request_id, token_ids, max_new_tokens, stop_ids)    ValueError: this request cannot be served, and why
    step() -> dict or None    one step: "ids" and "tokens" (a row per token), "finished", "admitted", "preempted" (ids),
                              "begun_s" and "ended_s" by time.perf_counter, "facts" (fields of EngineStep)
    close()

Requests come in whenever the engine has finished a step, all that were sent by then at once, as in a server.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import sys
import threading
import time
import traceback
from types import ModuleType
from typing import Any

ORPHANED_FOR_S = 20.0  # longer than the other side waits before it kills


class Wire:
    """Lines out in the order of the calls; lines in by a thread, so that the other side never waits to be read."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: str, content: Any) -> None:
        data = json.dumps({kind: content}, separators=(",", ":"), default=str).encode() + b"\n"
        while data:  # an unbuffered pipe may take a part of a long line
            data = data[self._out.write(data) :]

    def settings(self) -> Any:
        """The first line; None where the other side has closed at once."""
        return self._inbox.get()

    def commands(self, wait: bool) -> list[Any]:
        """All that has come in; with `wait` at least one, or None once the other side has closed."""
        found = [self._inbox.get()] if wait else []
        while True:
            try:
                found.append(self._inbox.get_nowait())
            except queue.Empty:
                return found

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            self._inbox.put(json.loads(line))
        self._inbox.put(None)
        time.sleep(ORPHANED_FOR_S)
        os._exit(1)  # still in a start or a step that does not end, and nobody is left to kill it


def serve(wire: Wire, engine: Any) -> None:
    while True:
        for command in wire.commands(wait=not engine.busy):
            if command is None or "close" in command:
                return
            for request in command.get("submit", ()):
                _submit(wire, engine, request)
        if engine.busy:
            step = engine.step()
            if step is not None:
                wire.send("step", step)


def _submit(wire: Wire, engine: Any, request: dict[str, Any]) -> None:
    try:
        engine.submit(request["id"], request["prompt"], request["new"], request["stop"])
    except ValueError as error:
        wire.send("failed", [[request["id"], "refused", " ".join(str(error).split())]])


def load(path: str) -> ModuleType:
    """As a package, so that it may have parts beside it: `from .part import ...`."""
    spec = importlib.util.spec_from_file_location("worker", path, submodule_search_locations=[os.path.dirname(path)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["worker"] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    wire = Wire()
    settings = wire.settings()
    if settings is None:
        return
    try:
        if settings.get("cores"):
            os.sched_setaffinity(0, settings["cores"])  # before any library counts them
        engine = load(sys.argv[1]).open_engine(settings)
        wire.send("ready", engine.resolved)
        serve(wire, engine)
        engine.close()
    except Exception as error:
        traceback.print_exc()
        wire.send("fatal", " ".join(f"{type(error).__name__}: {error}".split()))
        sys.exit(1)


if __name__ == "__main__":
    main()
