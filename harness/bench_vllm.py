"""`harness bench vllm`: our `gpu_only` against the real vLLM, same weights, blocks, caps and cores, interleaved.

Runs the shipped configurations as any user would and reads what they left: the ratio with its interval, whether both
decided alike, and where each spent a step. The run folders stay, with their reports.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from harness.bench_vllm_sim import Prediction, Simulated, predicted, simulate
from harness.config import load_experiment
from harness.errors import UnfitEnvironmentError
from harness.progress import Silence
from harness.runner import run_experiment
from harness.stats import MIN_PAIRS, Interval, paired_interval
from harness.step_series import series_of
from results.query import Run, load_run
from results.schema import CellSummary, Status
from results.store import read_steps

CONFIGS = {"vllm_cpu": False, "vllm_cpu_0.5b": True}  # whether a coarse profile has to do: steps of seconds
OURS, THEIRS = "gpu_only", "vllm"
OUT = Path("runs")
MAX_CONTEXT = 512  # of the profile: longer than any request here
DECIDED = ("decode_rows", "prefill_rows", "prefill_tokens", "preempted", "running", "waiting", "accel_blocks_used")


@dataclass(frozen=True, slots=True)
class StepTime:
    """Where an engine's step goes, means over the steps of all repeats. `other_s`: all that is neither of the two."""

    steps: int
    model_s: float
    scheduler_s: float
    other_s: float


@dataclass(frozen=True, slots=True)
class Race:
    """Both engines on one workload. `same_steps`: batch by batch, in every pair."""

    config: str
    workload: str
    model: str
    dtype: str
    cores: int
    label: str
    pairs: int
    ratio: Interval
    ratio_min: float
    ratio_max: float
    ours_tokens_per_s: float
    theirs_tokens_per_s: float
    ours_preemptions: tuple[int, ...]
    theirs_preemptions: tuple[int, ...]
    same_steps: bool
    tokens_held: bool
    ours_step: StepTime
    theirs_step: StepTime
    prediction: Prediction
    run_dir: str


def main(as_json: bool) -> None:
    races = []
    for config, coarse in CONFIGS.items():
        found = races_of(config, coarse)
        races += found
        if not as_json:  # the next configuration takes a quarter of an hour
            print("\n".join(line for race in found for line in _lines(race)), flush=True)
    if as_json:
        print(json.dumps({"rows": [asdict(race) for race in races]}))


def races_of(config: str, coarse: bool = False) -> list[Race]:
    experiment = load_experiment(config)
    outcome = run_experiment(experiment, OUT, Silence(), command=f"harness bench vllm ({config})")
    if outcome.interrupted:
        raise KeyboardInterrupt
    run = load_run(outcome.run_dir)
    simulated = simulate(experiment, OUT, MAX_CONTEXT, coarse)
    workloads = dict.fromkeys(cell.workload for cell in run.cells)
    return [_race(config, run, workload, simulated[workload]) for workload in workloads]


def _race(config: str, run: Run, workload: str, simulated: Simulated) -> Race:
    pairs = _pairs(run, workload)
    if len(pairs) < 2:
        errors = "; ".join({cell.error for cell in run.cells if cell.error})
        raise UnfitEnvironmentError(f"{config}, {workload}: fewer than two pairs of valid cells: {errors}")
    ratios = [ours.metrics["output_tokens_per_s"] / theirs.metrics["output_tokens_per_s"] for ours, theirs in pairs]
    ours, theirs = zip(*pairs, strict=True)
    settings = run.manifest.config
    return Race(
        config=config,
        workload=workload,
        model=str(settings["model"]),
        dtype=str(settings["dtype"]),
        cores=int(str(ours[0].resolved["accel_cores"])),
        label=str(run.manifest.label),
        pairs=len(pairs),
        ratio=paired_interval(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        ours_tokens_per_s=_median(ours),
        theirs_tokens_per_s=_median(theirs),
        ours_preemptions=tuple(int(cell.metrics["preemptions"]) for cell in ours),
        theirs_preemptions=tuple(int(cell.metrics["preemptions"]) for cell in theirs),
        same_steps=all(_decided_alike(run, *pair) for pair in pairs),
        tokens_held=all(cell.parity is not None and bool(cell.parity.held) for pair in pairs for cell in pair),
        ours_step=_step_time(run, ours),
        theirs_step=_step_time(run, theirs),
        prediction=_prediction(run, workload, simulated, ours[-1], theirs[-1]),
        run_dir=str(run.folder.path),
    )


def _prediction(run: Run, workload: str, simulated: Simulated, ours: CellSummary, theirs: CellSummary) -> Prediction:
    label = run.manifest.label
    observed = {
        f"vllm [{label}]": series_of(steps_of(run, theirs)),
        f"gpu_only [{label}]": series_of(steps_of(run, ours)),
    }
    picture = run.folder.path / f"{run.manifest.name}-{workload}-batches.svg"
    return predicted(simulated, observed, int(theirs.metrics["preemptions"]), picture)


def _pairs(run: Run, workload: str) -> list[tuple[CellSummary, CellSummary]]:
    valid = {
        (cell.engine, cell.repeat): cell
        for cell in run.cells
        if cell.workload == workload and cell.status is Status.OK and not cell.unfair
    }
    repeats = sorted({repeat for _, repeat in valid})
    both = [(valid.get((OURS, repeat)), valid.get((THEIRS, repeat))) for repeat in repeats]
    return [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]


def _decided_alike(run: Run, ours: CellSummary, theirs: CellSummary) -> bool:
    a, b = steps_of(run, ours), steps_of(run, theirs)
    return len(a) == len(b) and all(list(a[column]) == list(b[column]) for column in DECIDED)


def steps_of(run: Run, cell: CellSummary) -> pd.DataFrame:
    return read_steps(run.folder.cell_path(cell.cell_id))


def _step_time(run: Run, cells: Sequence[CellSummary]) -> StepTime:
    tables = [steps_of(run, cell) for cell in cells]
    steps = sum(map(len, tables))
    whole_s = sum(float(table.ended_s.iloc[-1] - table.started_s.iloc[0]) for table in tables) / steps
    model_s = sum(float(table.gpu_busy_s.sum()) for table in tables) / steps
    scheduler_s = sum(float(table.scheduler_s.sum()) for table in tables) / steps
    return StepTime(steps // len(tables), model_s, scheduler_s, whole_s - model_s - scheduler_s)


def _median(cells: Sequence[CellSummary]) -> float:
    return float(pd.Series([cell.metrics["output_tokens_per_s"] for cell in cells]).median())


def _lines(race: Race) -> list[str]:
    interval = f"{race.ratio.low:.2f}-{race.ratio.high:.2f}"
    few = "" if race.pairs >= MIN_PAIRS else f"; no verdict below {MIN_PAIRS} pairs"
    decided = "the same steps, batch by batch" if race.same_steps else "DIFFERENT steps"
    tokens = "tokens of both are transformers' own" if race.tokens_held else "WRONG tokens"
    return [
        f"{race.model} {race.dtype}, {race.cores} cores, {race.workload} [{race.label}]: gpu_only "
        f"{race.ours_tokens_per_s:.1f} tokens/s, vllm {race.theirs_tokens_per_s:.1f}: ratio {race.ratio.value:.2f} "
        f"(95 % interval {interval}, {race.pairs} pairs, {race.ratio_min:.2f}-{race.ratio_max:.2f}{few})",
        f"  preemptions {_counts(race.ours_preemptions)} and {_counts(race.theirs_preemptions)}; {decided}; {tokens}",
        f"  a step of gpu_only: {_split(race.ours_step)}",
        f"  a step of vllm:     {_split(race.theirs_step)}",
        f"  simulated with a profile of gpu_only: {race.prediction.simulated_preemptions} preemptions; batch over time "
        f"off by {race.prediction.batch_difference:.1%} of vllm's mean batch{_correlation(race.prediction)}",
        f"  {race.run_dir}, {race.prediction.picture}",
    ]


def _correlation(prediction: Prediction) -> str:
    known = prediction.batch_correlation
    return "" if known is None else f", correlation {known:.3f}"


def _counts(counts: Sequence[int]) -> str:
    return " ".join(map(str, sorted(set(counts))))


def _split(step: StepTime) -> str:
    return (
        f"{step.model_s * 1e3:.2f} ms in the model, {step.scheduler_s * 1e3:.2f} ms scheduling, "
        f"{step.other_s * 1e3:.2f} ms otherwise ({step.steps} steps)"
    )
