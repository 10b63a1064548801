"""The engine in the test's own process, where a dozen of them start in the time of one: the same worker, no wire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.hf.worker import Engine, open_engine
from engines.model.config import load_config
from engines.model.reference import quiet

Step = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    token_ids: list[int]
    new_tokens: int
    stop_ids: list[int] = field(default_factory=list)


def settings(folder: Path, files: Path, **changes: Any) -> dict[str, Any]:
    """What the worker is told, for a roomy envelope and nothing special."""
    kv_bytes = load_config(folder).layers * load_config(folder).kv_bytes_per_token_per_layer(4)
    told = {
        "backend": "cpu",
        "model": str(folder),
        "dtype": "float32",
        "accel_kv_tokens": 8192,
        "accel_page_tokens": 16,
        "accel_memory_bytes": 1 << 30,
        "max_batch": 16,
        "max_batch_tokens": 2048,
        "longest_request_tokens": 700,
        "cores": [0],  # how many threads; they are pinned where a process is started
        "files": str(files),
        "offload": "none",
        "device_map": "",
        "max_memory": {},
        "attention": "sdpa",
        "batch": 16,
        "host_threads": 1,
        "kv_bytes_per_token": kv_bytes,
    }
    assert changes.keys() <= told.keys()
    return told | changes


@contextmanager
def opened(folder: Path, files: Path, **changes: Any) -> Iterator[Engine]:
    files.mkdir(exist_ok=True)
    with quiet():  # its warnings are no errors in its own process
        engine = open_engine(settings(folder, files, **changes))
        try:
            yield engine
        finally:
            engine.close()


def serve(engine: Engine, requests: Sequence[Asked], at_once: int | None = None) -> tuple[list[list[int]], list[Step]]:
    """Answers in the order of the requests, and the steps; with `at_once` the others come in one a step."""
    answers: list[list[int]] = [[] for _ in requests]
    steps: list[Step] = []
    coming = list(enumerate(requests))
    while coming or engine.busy:
        count = 1 if steps else at_once or len(coming)
        for request_id, request in coming[:count]:
            engine.submit(request_id, request.token_ids, request.new_tokens, request.stop_ids)
        coming = coming[count:]
        step = engine.step()
        for request_id, token in zip(step["ids"], step["tokens"], strict=True):
            answers[request_id].append(token)
        steps.append(step)
    return answers, steps


def batches(steps: Sequence[Step]) -> list[list[int]]:
    return [step["admitted"] for step in steps if step["admitted"]]
