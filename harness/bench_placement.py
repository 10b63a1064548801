"""`harness bench placement`: who serves a model of twice the accelerator's memory best, and does the runtime keep up?

Batches of 1, 4, 16 and 64 requests, prompts short (128 + 128 tokens of the modelled workload) and long (896 + 128), all
engines that place weights, at the pace of a T4 and its host. The whole table is simulated; the rows in EMULATED run for
real as well, on paced tensors and threads, and are told beside it. Takes most of half an hour on a quiet machine.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.config import load_experiment
from harness.experiment import EngineChoice, Experiment, WorkloadChoice
from harness.progress import Silence
from harness.runner import run_experiment
from results.schema import CellSummary

CONFIG = "emulated_offload"
BATCHES = (1, 4, 16, 64)
EMULATED = ((1, "short"), (4, "short"), (16, "short"))


@dataclass(frozen=True, slots=True)
class Row:
    """`emulated`: output tokens per second of the paced run; None where it was only simulated, or was not valid."""

    batch: int
    workload: str
    engine: str
    simulated: float
    imbalance: float
    emulated: float | None = None
    error_percent: float | None = None  # median of predicted against observed steps, emulated
    note: str = ""


def rows() -> Iterator[Row]:
    experiment = load_experiment(CONFIG)
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        for batch in BATCHES:
            simulated = _cells(_at(experiment, batch), "sim", Path(folder))
            names = [name for size, name in EMULATED if size == batch]
            emulated = _cells(_only(_at(experiment, batch), names), "cpu", Path(folder)) if names else {}
            for (workload, engine), cell in simulated.items():
                yield _row(batch, workload, engine, cell, emulated.get((workload, engine)))


def _row(batch: int, workload: str, engine: str, simulated: CellSummary, emulated: CellSummary | None) -> Row:
    figures = simulated.metrics
    row = Row(batch, workload, engine, _rate(simulated) or 0.0, figures.get("load_imbalance", float("nan")))
    if emulated is None:
        return row
    error = emulated.metrics.get("prediction_error_percent_p50")
    return Row(batch, workload, engine, row.simulated, row.imbalance, _rate(emulated), error, emulated.error or "")


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


def _only(experiment: Experiment, names: list[str]) -> Experiment:
    kept = tuple(each for each in experiment.workloads if each.options["name"] in names)
    return experiment.model_copy(update={"workloads": kept})


def _cells(experiment: Experiment, backend: str, folder: Path) -> dict[tuple[str, str], CellSummary]:
    changed = experiment.model_copy(update={"backend": backend, "name": f"{experiment.name}_{backend}"})
    summary = run_experiment(changed, folder, Silence()).summary
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
        line += f"; {row.emulated:7.2f} emulated ({ratio:.0%})"
        line += f", steps predicted to {row.error_percent:.1f} %" if row.error_percent is not None else ""
    return line + (f"; not valid: {row.note}" if row.note else "")
