"""A mock engine served by the real loop, in simulated time unless another clock is given; and cells that use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.core.adapter import EngineAdapter
from engines.core.clock import Clock, VirtualClock
from engines.mock.adapter import MockAdapter
from engines.mock.law import LatencyLaw
from harness.arrival_source import ArrivalSource
from harness.driver import serve
from harness.experiment import Experiment
from harness.plan import CellSpec, expand
from harness.recorder import RequestRecorder
from tests.harness.conftest import VALID
from workloads import Request, Workload

Row = dict[str, Any]
Wrap = Callable[[EngineAdapter], EngineAdapter]


def workload(*requests: tuple[float, int, int]) -> Workload:
    """(arrival_s, prompt tokens, output tokens) each, in the order of arrival."""
    numbered = tuple(Request(number, *request) for number, request in enumerate(requests))
    return Workload("test", "test", numbered, "test", (), None)


def served(
    law: LatencyLaw, work: Workload, clock: Clock | None = None, wrap: Wrap = lambda adapter: adapter
) -> list[Row]:
    """The records of the requests, by request id."""
    rows: list[Row] = []
    arrivals = ArrivalSource(work)
    if clock is None:
        clock = VirtualClock()
        adapter = MockAdapter(law, clock, lambda: arrivals.next_s)
    else:
        adapter = MockAdapter(law, clock)
    serve(wrap(adapter), arrivals, clock, RequestRecorder(rows.append, 0), {})
    return sorted(rows, key=lambda row: int(row["request_id"]))


def cell_spec(tmp_path: Path, **changes: Any) -> CellSpec:
    """One cell of a small experiment on `sim`, with its spec.json in the folder."""
    engine = {"kind": "mock", "ttft_s": 0.1, "tpot_s": 0.01}
    experiment = Experiment.model_validate(VALID | {"engines": [engine]} | changes)
    (spec,) = expand(experiment, "cpu" if experiment.backend == "cpu" else "sim")
    (tmp_path / "spec.json").write_text(spec.to_json())
    return spec
