"""The machine beside one cell: samples.parquet, energy, what sampling cost, and what could not be had, with the reason.

Whatever goes wrong here becomes such a reason: watching never ends a run, and a simulated cell has no machine to watch.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.collectors.base import HANG_AFTER_S, Collector, Row, Sampler
from harness.collectors.cpu import CpuCollector
from harness.collectors.gpu import EnergyMeter, GpuCollector
from results.errors import ResultsError
from results.writers import SampleWriter

ENERGY = "energy_j_per_output_token"
SIMULATED = "simulated: there is no machine to sample"


@dataclass(frozen=True, slots=True)
class Watched:
    """`notes` says of a figure that needs it whether it was measured or estimated."""

    metrics: dict[str, float] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    energy: EnergyMeter = field(default_factory=EnergyMeter)

    def per_output_token(self, output_tokens: float) -> "Watched":
        """With the energy of every token that was put out while the machine was watched, warm-up included."""
        found = self.energy.per_output_token(output_tokens, self.unavailable.get(ENERGY, ""))
        if found.j_per_output_token is None:
            return replace(self, unavailable=self.unavailable | {ENERGY: found.why})
        return replace(
            self,
            metrics=self.metrics | {ENERGY: found.j_per_output_token},
            unavailable={key: why for key, why in self.unavailable.items() if key != ENERGY},
            notes=(*self.notes, f"{ENERGY} is {found.label}: {found.why}; GPU only"),
        )


class MachineWatch:
    """Made before the launching thread pins itself: its threads inherit the mask, and may run on any core.

    The collectors start at once, so that their imports and first looks fall into the time in which the model is loaded;
    what they see counts from start() on.
    """

    def __init__(self, cell_dir: Path, watching: bool, collectors: Sequence[Collector] | None = None) -> None:
        self._energy = EnergyMeter()
        self._clock: Callable[[], float] | None = None  # of the run, once it serves
        self._writing = threading.Lock()
        self._sampler: Sampler | None = None
        self._why_not = SIMULATED
        self._watched: Watched | None = None
        if not watching:
            return
        chosen = (CpuCollector(), GpuCollector()) if collectors is None else collectors
        self._writer = SampleWriter(cell_dir, [column for collector in chosen for column in collector.columns])
        sampler = Sampler(chosen, self._keep, clock=self._now)
        try:
            sampler.start()
            self._sampler = sampler
        except RuntimeError as error:  # the system gives no thread
            self._why_not = f"sampling could not start: {error}"

    def start(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        if self._sampler is not None:
            self._sampler.settle(0.0)

    def close(self) -> Watched:
        """May be called again, and gives the same. Takes no longer than the sampler's patience with its collectors."""
        if self._watched is None:
            self._watched = self._ended()
        return self._watched

    def _ended(self) -> Watched:
        if self._sampler is None:
            return Watched(unavailable={"samples": self._why_not, ENERGY: self._why_not})
        report = self._sampler.close()
        unavailable = report.unavailable | self._no_energy(report.unavailable)
        problem = self._closed_file()
        if problem:
            unavailable["samples"] = problem
        return Watched({"sampler_cost_share": report.cost_share}, unavailable, energy=self._energy)

    def _closed_file(self) -> str | None:
        """What is wrong with samples.parquet. A disk that takes nothing now may still take the run's own records."""
        if not self._writing.acquire(timeout=HANG_AFTER_S):
            return "the disk did not take the samples in time"
        try:
            self._writer.close()
        except ResultsError as error:
            return str(error)
        finally:
            self._writing.release()
        return None

    def _no_energy(self, reasons: Mapping[str, str]) -> dict[str, str]:
        """In the collector's own words, where it gave neither of the two readings."""
        if "gpu_energy_j" in reasons and "gpu_power_w" in reasons:
            return {ENERGY: reasons["gpu_energy_j"]}
        return {}

    def _now(self) -> float:
        return math.nan if self._clock is None else self._clock()

    def _keep(self, row: Row) -> None:
        if math.isnan(row["time_s"]):  # seen before serving began
            return
        self._energy.add(row)
        with self._writing:
            self._writer.append(row)
