"""The machine beside one cell: samples.parquet, what sampling cost, and what could not be had, with the reason.

A simulated cell has no machine to watch; that too is said rather than left blank.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.collectors.base import Collector, Row, Sampler
from harness.collectors.cpu import CpuCollector
from harness.collectors.gpu import GpuCollector
from results.writers import SampleWriter


@dataclass(frozen=True, slots=True)
class Watched:
    metrics: dict[str, float] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)


class MachineWatch:
    """Made before the launching thread pins itself, so that the samplers may run on any core."""

    def __init__(self, cell_dir: Path, watching: bool) -> None:
        self._cell_dir = cell_dir
        self._cores = os.sched_getaffinity(0)
        self._collectors: list[Collector] = [CpuCollector(), GpuCollector()] if watching else []
        self._sampler: Sampler | None = None
        self._writer: SampleWriter | None = None

    def start(self, clock: Callable[[], float]) -> None:
        if not self._collectors:
            return
        columns = [column for collector in self._collectors for column in collector.columns]
        self._writer = SampleWriter(self._cell_dir, columns)
        self._sampler = Sampler(self._collectors, self._keep, clock=clock)
        pinned = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores)  # threads inherit the mask of the one that starts them
        try:
            self._sampler.start()
        finally:
            os.sched_setaffinity(0, pinned)

    def close(self) -> Watched:
        if self._sampler is None or self._writer is None:
            return Watched(unavailable={"samples": "simulated: there is no machine to sample"})
        report = self._sampler.close()
        self._writer.close()
        return Watched({"sampler_cost_share": report.cost_share}, report.unavailable)

    def _keep(self, row: Row) -> None:
        assert self._writer is not None
        self._writer.append(row)
