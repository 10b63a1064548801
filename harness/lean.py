"""A simulated cell served for its figures only: no journal, no records, nothing written.

Whoever asks what a machine might do as well, or which of many settings wins, asks here; a run's cells keep records.
"""

from __future__ import annotations

from typing import Any

from harness.build import simulated
from harness.collectors.steps import StepObservation, step_columns
from harness.driver import serve
from harness.metrics import Aggregator, Measured
from harness.plan import CellSpec
from harness.recorder import RequestRecorder, StepRecorder

FLUSH_ROWS = 1000


def figures(spec: CellSpec, *, of_steps: bool = False) -> Measured:
    """Of its requests, and of its steps where those are asked for. ConfigError where the cell cannot run."""
    rows = _Rows(Aggregator(None if spec.slo is None else spec.slo.limits))
    cell = simulated(spec, (StepRecorder(rows.step),) if of_steps else ())
    recorder = RequestRecorder(rows.request, spec.measure.warmup_requests)
    cell.adapter.start()
    try:
        serve(cell.adapter, cell.arrivals, cell.clock, recorder, {})
    finally:
        cell.adapter.close()
    return rows.result()


class _Rows:
    """Handed on by the thousand: columns are cheap, and memory stays bounded."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._requests: list[dict[str, Any]] = []
        self._steps: list[StepObservation] = []

    def request(self, row: dict[str, Any]) -> None:
        self._requests.append(row)
        if len(self._requests) >= FLUSH_ROWS:
            self._flush()

    def step(self, observation: StepObservation) -> None:
        self._steps.append(observation)
        if len(self._steps) >= FLUSH_ROWS:
            self._flush()

    def result(self) -> Measured:
        self._flush()
        return self._aggregator.result()

    def _flush(self) -> None:
        self._aggregator.add_requests(self._requests)
        self._aggregator.add_steps(step_columns(self._steps) if self._steps else ())
        self._requests, self._steps = [], []
