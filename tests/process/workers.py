"""Engines of a few lines for the wire's tests, the places they run at, and drivers that see them through."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.core.adapter import Delivery, EngineStep, Site, Submission
from engines.core.clock import MonotonicClock
from engines.process.adapter import ProcessAdapter, Worker

PATIENCE_S = 60.0

# Answers each request with its own prompt, over and over, a token a step to everybody who is in it.
ECHO = """
import os, sys, time


def open_engine(settings):
    return Echo(settings)


class Echo:
    def __init__(self, settings):
        self.settings = settings
        self.queue, self.new = [], []
        self.resolved = {"pid": os.getpid(), "dtype": settings["dtype"]}

    @property
    def busy(self):
        return bool(self.queue)

    def submit(self, request_id, token_ids, max_new_tokens, stop_ids):
        if not token_ids:
            raise ValueError("it is empty,\\n  and this engine repeats what it reads")
        self.queue.append([request_id, token_ids, max_new_tokens, 0, stop_ids])
        self.new.append(request_id)

    def step(self):
        begun_s = time.perf_counter()
        running, admitted, self.new = self.queue, self.new, []
        tokens = [prompt[given % len(prompt)] for _, prompt, _, given, _ in running]
        for request in running:
            request[3] += 1
        ended = [request for request, token in zip(running, tokens) if request[3] == request[2] or token in request[4]]
        self.queue = [request for request in running if request not in ended]
        return {
            "ids": [request[0] for request in running],
            "tokens": tokens,
            "finished": [request[0] for request in ended],
            "admitted": admitted,
            "begun_s": begun_s,
            "ended_s": time.perf_counter(),
            "facts": {"running": len(running), "waiting": 0},
        }

    def close(self):
        pass
"""


def echo(methods: str) -> str:
    """It, with these methods in place of its own; `super()` is the real thing."""
    return f"{ECHO}\n\nclass Changed(Echo):\n{textwrap.indent(textwrap.dedent(methods), '    ')}\n\nEcho = Changed\n"


def telling(name: str, expression: str) -> str:
    """It, and when it is ready it tells what this comes to in its process."""
    return echo(
        f"""
        def __init__(self, settings):
            super().__init__(settings)
            self.resolved["{name}"] = {expression}
        """
    )


def site(scratch: Path, backend: str = "cuda", on_step: Callable[[EngineStep], None] = lambda step: None) -> Site:
    """`cuda`, where no core is anybody's: nothing here computes."""
    return Site(
        backend=backend,
        clock=MonotonicClock(),
        model="none",
        model_folder=lambda: scratch / "model",
        dtype="float32",
        accel_kv_tokens=1024,
        accel_page_tokens=16,
        kv_bytes_per_token=8,
        accel_memory_bytes=1 << 20,
        max_batch=8,
        max_batch_tokens=64,
        longest_request_tokens=100,
        accel_cores=1,
        host_threads=1,
        scratch=scratch,
        on_step=on_step,
    )


def adapter(
    scratch: Path, source: str, place: Site | None = None, python: str = sys.executable, **more: Any
) -> ProcessAdapter:
    script = scratch / "worker.py"
    script.write_text(source)
    return ProcessAdapter(Worker("toy", python, script, **more), place or site(scratch))


def request(request_id: int, token_ids: list[int], new_tokens: int, stop_ids: tuple[int, ...] = ()) -> Submission:
    return Submission(request_id, len(token_ids), token_ids, new_tokens, frozenset(stop_ids))


def deliveries(engine: ProcessAdapter, submissions: list[Submission]) -> list[Delivery]:
    """All of it, until nobody is in the engine any more."""
    for submission in submissions:
        assert engine.submit(submission) is None
    found, deadline_s = [], time.monotonic() + PATIENCE_S
    while engine.busy:
        assert time.monotonic() < deadline_s, "waited in vain for the engine"
        delivery = engine.poll(0.0)
        found += [delivery] if delivery is not None else []
    return found


def answers(found: list[Delivery]) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {}
    for delivery in found:
        for request_id, token in zip(delivery.request_ids, delivery.token_ids, strict=True):
            tokens.setdefault(request_id, []).append(token)
    return tokens


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
