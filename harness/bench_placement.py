"""`harness bench placement`: who serves a model of twice the accelerator's memory best, and does the runtime keep up?

Batches of 1, 4, 16 and 64 requests, prompts short (128 + 128 tokens of the modelled workload) and long (896 + 128), all
engines that place weights, at the pace of a T4 and its host. Every cell is simulated and then run for real, on paced
tensors and threads. Two hours and a half on a quiet machine, most of them for static partition at batch 64.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.config import load_experiment
from harness.experiment import EngineChoice, Experiment, WorkloadChoice
from harness.progress import Silence
from harness.runner import run_experiment
from results.schema import CellSummary

CONFIG = "emulated_offload"
BATCHES = (1, 4, 16, 64)
CELL_S = 100.0  # about as long as a cell should take emulated, as far as the scales below allow
SCALES = (1.5, 2.5)  # less, and decodes on the host take longer than their pace; more is not needed


@dataclass(frozen=True, slots=True)
class Row:
    """Rates are output tokens per second of the modelled machine. `emulated`: of the paced run, None where it was not
    valid. `scale`: the emulated machine's time over the modelled one's."""

    batch: int
    workload: str
    engine: str
    simulated: float
    imbalance: float
    scale: float = 1.0
    emulated: float | None = None
    error_percent: float | None = None  # median of predicted against observed steps, emulated
    note: str = ""


def rows(batches: tuple[int, ...] = BATCHES) -> Iterator[Row]:
    experiment = load_experiment(CONFIG)
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        for batch in batches:
            at_batch = _at(experiment, batch)
            for (workload, engine), cell in _cells(_paced(at_batch, "sim", 1.0), Path(folder)).items():
                row = Row(batch, workload, engine, _rate(cell) or 0.0, cell.metrics.get("load_imbalance", float("nan")))
                yield _emulated(row, _only(at_batch, workload, engine), Path(folder))


def _emulated(row: Row, experiment: Experiment, folder: Path) -> Row:
    """The row with what the paced run of its cell says."""
    if not row.simulated:
        return row
    modelled_s = experiment.workloads[0].options["output"] * row.batch / row.simulated
    scale = round(min(max(CELL_S / modelled_s, SCALES[0]), SCALES[1]), 2)
    (cell,) = _cells(_paced(experiment, "cpu", scale), folder).values()
    rate, error = _rate(cell), cell.metrics.get("prediction_error_percent_p50")
    return replace(row, scale=scale, emulated=rate and rate * scale, error_percent=error, note=cell.error or "")


def _rate(cell: CellSummary) -> float | None:
    return cell.metrics.get("output_tokens_per_s")


def _at(experiment: Experiment, batch: int) -> Experiment:
    """So many requests at once, and every engine planned for them."""
    engines = [
        EngineChoice(
            kind=each.kind, name=each.name, **each.options | ({"slots": batch} if "slots" in each.options else {})
        )
        for each in experiment.engines
    ]
    workloads = [WorkloadChoice.model_validate(each.options | {"requests": batch}) for each in experiment.workloads]
    budget = experiment.budget.model_copy(update={"max_batch": batch})
    return experiment.model_copy(update={"budget": budget, "engines": tuple(engines), "workloads": tuple(workloads)})


def _only(experiment: Experiment, workload: str, engine: str) -> Experiment:
    return experiment.model_copy(
        update={
            "workloads": tuple(each for each in experiment.workloads if each.options["name"] == workload),
            "engines": tuple(each for each in experiment.engines if (each.name or each.kind) == engine),
        }
    )


def _paced(experiment: Experiment, backend: str, scale: float) -> Experiment:
    pace = experiment.emulation.pace.model_copy(update={"time_scale": scale})
    emulation = experiment.emulation.model_copy(update={"pace": pace})
    name = f"{experiment.name}_{backend}"
    return experiment.model_copy(update={"backend": backend, "emulation": emulation, "name": name})


def _cells(experiment: Experiment, folder: Path) -> dict[tuple[str, str], CellSummary]:
    summary = run_experiment(experiment, folder, Silence()).summary
    return {(cell.workload, cell.engine): cell for cell in summary.cells}


def main(as_json: bool) -> None:
    told = []
    for row in rows():
        told.append(row)
        if not as_json:
            print(_line(row), flush=True)
    if as_json:
        print(json.dumps([asdict(row) for row in told], indent=2))


def _line(row: Row) -> str:
    line = (
        f"batch {row.batch:>2} {row.workload:<5} {row.engine:<17} {row.simulated:7.2f} tokens/s simulated, "
        f"loads {row.imbalance:4.0%} apart"
    )
    if row.emulated is not None:
        ratio = row.emulated / row.simulated if row.simulated else float("nan")
        line += f"; {row.emulated:7.2f} emulated ({ratio:.0%}, time x {row.scale:g})"
        line += f", steps predicted to {row.error_percent:.1f} %" if row.error_percent is not None else ""
    return line + (f"; not valid: {row.note}" if row.note else "")
