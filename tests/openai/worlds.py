"""The engine against a server of these tests: opened as the harness does it, served by the driver's own loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.openai.adapter import OpenAiAdapter
from harness.arrival_source import ArrivalSource
from harness.driver import serve
from harness.experiment import Experiment
from harness.plan import CellSpec, ResolvedBackend, expand
from harness.recorder import RequestRecorder
from harness.served import open_served
from tests.openai.scripts import FIRST_TOKEN
from tests.openai.server import Server
from workloads import Request, Workload

EXPERIMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "endpoint",
    "backend": "endpoint",
    "model": "tiny-1m",
    "dtype": "float32",
    "budget": {"accel_kv_tokens": 512, "host_kv_tokens": 64, "cpu_threads": 1, "max_batch": 8},
    "workloads": [{"kind": "long_output", "prompt": 12, "output": 6, "jitter": 0.0, "requests": 6, "rate": 200}],
    "measure": {"repeats": 1, "seed": 0, "time_limit_s": 60},
}
OPTIONS: dict[str, Any] = {"connect_timeout_s": 5, "silence_timeout_s": 20, "request_timeout_s": 30}


def cell_spec(url: str, options: Mapping[str, Any] | None = None, **changes: Any) -> CellSpec:
    engine = {"kind": "openai", "base_url": url, **OPTIONS, **(options or {})}
    experiment = Experiment.model_validate(EXPERIMENT | {"engines": [engine]} | changes)
    backend: ResolvedBackend = "cpu" if experiment.backend == "cpu" else "endpoint"
    (spec,) = expand(experiment, backend)
    return spec


@dataclass
class Outcome:
    resolved: dict[str, object]
    rows: list[dict[str, Any]]
    breaches: list[str]
    answers: dict[int, list[int]]

    @property
    def statuses(self) -> list[str]:
        return [row["status"] for row in self.rows]

    @property
    def reasons(self) -> dict[int, str]:
        return {row["request_id"]: row["reason"] for row in self.rows if row["reason"]}


def opened(server: Server, tmp_path: Path, arrivals: ArrivalSource | None = None, **options: Any) -> Any:
    """(the adapter, its clock), not started."""
    spec = cell_spec(server.url, options)
    served = open_served(spec, tmp_path, 64, (lambda: arrivals.next_s) if arrivals else lambda: None)
    assert isinstance(served.adapter, OpenAiAdapter)
    return served.adapter, served.clock


def served(server: Server, tmp_path: Path, requests: int = 1, gap_s: float = 0.0, **options: Any) -> Outcome:
    """Requests of 4 prompt tokens each that ask for 5, 7, 9 ... tokens."""
    work = workload(*[(index * gap_s, prompt_of(index), 5 + 2 * index) for index in range(requests)])
    prompts = {request.request_id: prompt_of(request.request_id) for request in work.requests}
    return outcome(server, tmp_path, work, prompts, **options)


def outcome(
    server: Server, tmp_path: Path, work: Workload, prompts: Mapping[int, Sequence[int]], **options: Any
) -> Outcome:
    arrivals = ArrivalSource(work)
    adapter, clock = opened(server, tmp_path, arrivals, **options)
    rows: list[dict[str, Any]] = []
    recorder = RequestRecorder(rows.append, 0, keep=set(prompts))
    resolved = adapter.start()
    try:
        clock.restart()
        serve(adapter, arrivals, clock, recorder, prompts)
    finally:
        adapter.close()
    rows.sort(key=lambda row: int(row["request_id"]))
    return Outcome(resolved, rows, recorder.breaches.sentences(), recorder.answers)


def prompt_of(index: int) -> list[int]:
    return [FIRST_TOKEN + index, 7, 8, 9]


def workload(*requests: tuple[float, Sequence[int], int]) -> Workload:
    """(arrival_s, prompt, output tokens) each."""
    numbered = tuple(
        Request(number, arrival_s, len(prompt), tokens) for number, (arrival_s, prompt, tokens) in enumerate(requests)
    )
    return Workload("test", "test", numbered, "test", (), None)
