"""`harness bench native-sim`: does a simulation fed with a profile of this machine say what this machine then does?

Round by round: profile, serve each workload at native speed, simulate the same with the round's profile. Requests keep
arriving faster than they are served, so that durations decide who runs with whom. One workload fills the batch, one
starves for KV and preempts. Profiles and run folders stay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from harness.errors import UnfitEnvironmentError
from harness.experiment import Experiment
from harness.profile_apart import profiled_apart
from harness.profile_file import Profile
from harness.progress import Silence
from harness.runner import run_experiment
from harness.step_series import Agreement, StepSeries, compare, series_of
from results.query import load_run
from results.schema import CellSummary, Status
from results.store import read_steps

DTYPE = "float32"
MAX_BATCH_TOKENS, MAX_CONTEXT = 256, 512
LOAD = 1.3  # requests that arrive, over those that are served when all are there at once
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 96
BUDGETS = {
    "batch-limited": {"max_batch": 12, "accel_kv_tokens": 12 * MAX_CONTEXT},
    "kv-starved": {"max_batch": 32, "accel_kv_tokens": 24 * PROMPT_TOKENS},
}


@dataclass(frozen=True, slots=True)
class Setup:
    model: str = "tiny-30m"
    requests: int = 96
    rounds: int = 3
    quick: bool = False
    out: Path = Path("runs")


@dataclass(frozen=True, slots=True)
class Served:
    """One run as the comparison needs it."""

    tokens_per_s: float
    preemptions: int
    prediction_error: float
    steps: StepSeries


@dataclass(frozen=True, slots=True)
class Row:
    """One workload over all rounds; ratios are simulated over native, pair by pair."""

    workload: str
    budget: dict[str, int]
    rate_per_s: float
    native_tokens_per_s: tuple[float, ...]
    simulated_tokens_per_s: tuple[float, ...]
    ratio_median: float
    ratio_min: float
    ratio_max: float
    native_preemptions: tuple[int, ...]
    simulated_preemptions: tuple[int, ...]
    batch_correlation: float | None  # medians over the rounds
    batch_difference: float  # mean absolute, as a share of the native mean batch
    step_prediction_error: float  # of the policy's predictor, in the native runs


def main(as_json: bool) -> None:
    setup = Setup()
    profiles, rows = race(setup)
    held_out = [profile.accuracy for profile in profiles]
    if as_json:
        errors = [{"median_error": each.median_error, "p95_error": each.p95_error} for each in held_out]
        print(json.dumps({"model": setup.model, "profiles": errors, "rows": [asdict(row) for row in rows]}))
        return
    for each in held_out:
        print(f"{setup.model} profile, held out: median error {each.median_error:.1%}, p95 {each.p95_error:.1%}")
    for row in rows:
        print("\n".join(words(row)))


def race(setup: Setup) -> tuple[list[Profile], list[Row]]:
    """Each round with a profile of its own, because a machine drifts."""
    found: dict[str, list[tuple[Served, Served]]] = {name: [] for name in BUDGETS}
    profiles: list[Profile] = []
    rates: dict[str, float] = {}
    for number in range(setup.rounds):
        path = setup.out / f"native-sim-{setup.model}-{number}.json"
        profiles.append(_profiled(setup, path))
        for name, pairs in found.items():
            if name not in rates:
                rates[name] = LOAD * _capacity(setup, name, path)
            native, simulated = (_served(setup, name, backend, path, rates[name]) for backend in ("cpu", "sim"))
            pairs.append((native, simulated))
    return profiles, [row_of(name, rates[name], pairs) for name, pairs in found.items()]


def _profiled(setup: Setup, path: Path) -> Profile:
    limits = {"max-batch-tokens": MAX_BATCH_TOKENS, "max-context": MAX_CONTEXT}
    return profiled_apart(path, {"model": setup.model, "dtype": DTYPE, **limits}, setup.quick)


def _capacity(setup: Setup, name: str, profile: Path) -> float:
    """Requests per second when none has to be waited for, by simulation: the same load on a fast machine and a slow."""
    return _served(setup, name, "sim", profile, None).tokens_per_s / OUTPUT_TOKENS


def _served(setup: Setup, name: str, backend: str, profile: Path, rate_per_s: float | None) -> Served:
    lengths = {"prompt": PROMPT_TOKENS, "output": OUTPUT_TOKENS, "jitter": 0.5, "requests": setup.requests}
    arrivals = {} if rate_per_s is None else {"rate": rate_per_s}
    experiment = Experiment.model_validate(
        {
            "schema_version": 1,
            "name": f"native-sim-{name}",
            "backend": backend,
            "profile": str(profile),
            "model": setup.model,
            "dtype": DTYPE,
            "budget": {"cpu_threads": 1, "max_batch_tokens": MAX_BATCH_TOKENS} | BUDGETS[name],
            "engines": ["gpu_only"],
            "workloads": [{"kind": "long_output"} | lengths | arrivals],
            "emulation": {"mode": "native"},
        }
    )
    outcome = run_experiment(experiment, setup.out, Silence(), command="harness bench native-sim")
    if outcome.interrupted:
        raise KeyboardInterrupt
    run = load_run(outcome.run_dir)
    [cell] = run.cells
    if cell.status is not Status.OK:
        raise UnfitEnvironmentError(f"{name} on {backend}: {cell.error}")
    return _figures(cell, run.folder.cell_path(cell.cell_id))


def _figures(cell: CellSummary, cell_dir: Path) -> Served:
    steps = read_steps(cell_dir)
    took_s = (steps["ended_s"] - steps["started_s"]).sum()
    return Served(
        tokens_per_s=cell.metrics["output_tokens_per_s"],
        preemptions=int(cell.metrics["preemptions"]),
        prediction_error=float((steps["predicted_s"].sum() - took_s) / took_s),
        steps=series_of(steps),
    )


def row_of(name: str, rate_per_s: float, pairs: Sequence[tuple[Served, Served]]) -> Row:
    ratios = [simulated.tokens_per_s / native.tokens_per_s for native, simulated in pairs]
    agreements = [compare(native.steps, simulated.steps) for native, simulated in pairs]
    return Row(
        workload=name,
        budget=BUDGETS[name],
        rate_per_s=rate_per_s,
        native_tokens_per_s=tuple(native.tokens_per_s for native, _ in pairs),
        simulated_tokens_per_s=tuple(simulated.tokens_per_s for _, simulated in pairs),
        ratio_median=median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        native_preemptions=tuple(native.preemptions for native, _ in pairs),
        simulated_preemptions=tuple(simulated.preemptions for _, simulated in pairs),
        batch_correlation=_correlation(agreements),
        batch_difference=median(agreement.relative_difference for agreement in agreements),
        step_prediction_error=median(native.prediction_error for native, _ in pairs),
    )


def _correlation(agreements: Sequence[Agreement]) -> float | None:
    known = [agreement.correlation for agreement in agreements if agreement.correlation is not None]
    return median(known) if known else None


def words(row: Row) -> list[str]:
    def listed(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.0f}" for value in values)

    correlation = "flat" if row.batch_correlation is None else f"correlation {row.batch_correlation:.2f}"
    return [
        f"{row.workload}: simulated / native output tokens/s {row.ratio_median:.3f} "
        f"({row.ratio_min:.3f}-{row.ratio_max:.3f}, {len(row.native_preemptions)} pairs; native "
        f"{listed(row.native_tokens_per_s)} tokens/s emulated, {listed(row.simulated_tokens_per_s)} simulated)",
        f"  preemptions: native {listed(row.native_preemptions)}; simulated {listed(row.simulated_preemptions)}",
        f"  batch size over time: {correlation}, mean difference {row.batch_difference:.1%} of the mean batch; "
        f"predicted step times off by {row.step_prediction_error:+.1%}",
    ]
