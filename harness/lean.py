"""A simulated cell served for its figures only: no journal, no records, nothing written.

Whoever asks what a machine might do as well, or which of many settings wins, asks here; a run's cells keep records.
"""

from __future__ import annotations

from typing import Any

from harness.build import simulated
from harness.driver import serve
from harness.metrics import Aggregator, Measured
from harness.plan import CellSpec
from harness.recorder import RequestRecorder

FLUSH_ROWS = 1000


def figures(spec: CellSpec) -> Measured:
    """Of its requests; steps are not observed. ConfigError where the cell cannot run."""
    cell = simulated(spec)
    slo = None if spec.slo is None else {key: limit for key, limit in spec.slo.model_dump().items() if limit}
    aggregator, rows = Aggregator(slo), _Rows()
    recorder = RequestRecorder(rows.add, spec.measure.warmup_requests)
    cell.adapter.start()
    try:
        serve(cell.adapter, cell.arrivals, cell.clock, recorder, {}, lambda ended, now_s: rows.flush(aggregator))
    finally:
        cell.adapter.close()
    aggregator.add_requests(rows.rows)
    return aggregator.result()


class _Rows:
    """Handed on by the thousand: columns are cheap, and memory stays bounded."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def flush(self, aggregator: Aggregator) -> None:
        if len(self.rows) >= FLUSH_ROWS:
            rows, self.rows = self.rows, []
            aggregator.add_requests(rows)
