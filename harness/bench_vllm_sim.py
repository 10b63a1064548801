"""What a simulation knows of the real vLLM: gpu_only on `sim`, fed with a profile of our own runtime on this machine.

The profile tells what ops cost us, not vLLM, so seconds are not compared; what a scheduler decides and when, as a share
of the run, is: preemptions, and the batch over time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.bench_vllm_plot import write_batches
from harness.experiment import Experiment
from harness.profile_apart import profiled_apart
from harness.progress import Silence
from harness.runner import run_experiment
from harness.step_series import StepSeries, compare, series_of
from results.query import load_run
from results.store import read_steps


@dataclass(frozen=True, slots=True)
class Simulated:
    preemptions: int
    steps: StepSeries
    run_dir: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """Simulated against observed. `batch_difference`: mean absolute, as a share of the observed mean batch."""

    simulated_preemptions: int
    observed_preemptions: int
    batch_difference: float
    batch_correlation: float | None
    picture: str


def simulate(experiment: Experiment, out: Path, max_context: int, coarse: bool = False) -> dict[str, Simulated]:
    """By workload; with a profile made now, because a machine drifts. `coarse`: a grid of few points."""
    budget, profile = experiment.budget, out / f"{experiment.name}-profile.json"
    options = {
        "model": experiment.model,
        "dtype": experiment.dtype,
        "accel-cores": budget.accel_cores,
        "page-tokens": budget.accel_page_tokens,
        "max-batch-tokens": budget.max_batch_tokens,
        "max-context": max_context,
    }
    profiled_apart(profile, options, coarse)
    engines = tuple(engine for engine in experiment.engines if engine.kind == "gpu_only")
    changes = {"name": f"{experiment.name}_sim", "backend": "sim", "engines": engines, "profile": str(profile)}
    measure = experiment.measure.model_copy(update={"repeats": 1})
    run = load_run(run_experiment(experiment.model_copy(update=changes | {"measure": measure}), out, Silence()).run_dir)
    return {
        cell.workload: Simulated(
            int(cell.metrics["preemptions"]),
            series_of(read_steps(run.folder.cell_path(cell.cell_id))),
            str(run.folder.path),
        )
        for cell in run.cells
    }


def predicted(simulated: Simulated, observed: Mapping[str, StepSeries], preemptions: int, picture: Path) -> Prediction:
    """`observed`: step series by the words of the picture's legend, vLLM's first."""
    agreement = compare(next(iter(observed.values())), simulated.steps)
    write_batches(picture, picture.stem, {**observed, "simulated gpu_only": simulated.steps})
    return Prediction(
        simulated.preemptions,
        preemptions,
        agreement.relative_difference,
        agreement.correlation,
        str(picture),
    )
