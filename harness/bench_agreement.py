"""`harness bench agreement`: does the simulator say what the emulated machine does, for whole workloads of all engines?

Two workloads on an emulated T4 and one of a model of twice its memory, all of our engines and every mode of APEX: real
tensors, threads, queues and preemption on the `cpu` backend, and the same cells on `sim` at the same pace. A ratio for
each, and whether both put the engines in the same order. Half an hour on a machine that is left alone; a cell whose ops
were late is shown and counts for nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from harness.config import load_experiment
from harness.experiment import Experiment
from harness.progress import Silence
from harness.runner import run_experiment
from results.schema import CellSummary, Status

REPEATS = 3
RATE = "output_tokens_per_s_whole_run"
TIE = 0.02  # engines so near to each other, simulated, have no order that could be kept
MODES = ("gpu_only", "asymmetric", "async_overlap", "full_overlap")
RESIDENT = [
    "engines=["
    "gpu_only, {kind: static_partition, host_share: 0.5}, neo, {kind: apex, name: apex_paper, selector: paper}, apex, "
    + ", ".join(f"{{kind: apex, name: apex_{mode}, mode: {mode}}}" for mode in MODES)
    + "]",
    "workloads=["
    "{kind: long_output, name: short, prompt: 30, output: 40, jitter: 0.2, requests: 20}, "
    "{kind: long_output, name: long, prompt: 110, output: 30, jitter: 0.2, requests: 12}]",
    "measure.warmup_requests=0",
]
PLACED = [
    "budget.max_batch=4",
    "engines.0.slots=4",
    "workloads=[{kind: long_output, name: placed, prompt: 16, output: 16, jitter: 0.0, requests: 4}]",
]


@dataclass(frozen=True, slots=True)
class Row:
    """Output tokens per second, and emulated over simulated: medians of the repeats that were valid. `spread`: of the
    ratios, the largest over the smallest. `note`: what was not valid.
    """

    workload: str
    engine: str
    simulated: float
    emulated: float | None = None
    ratio: float | None = None
    spread: float | None = None
    note: str = ""


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        return [
            row
            for config, sets in (("emulated_t4", RESIDENT), ("emulated_offload", PLACED))
            for row in _compared(config, sets, Path(folder))
        ]


def _compared(config: str, sets: Sequence[str], folder: Path) -> Iterator[Row]:
    emulated, simulated = (
        _cells(load_experiment(config, [*sets, f"measure.repeats={REPEATS}", f"backend={backend}"]), folder)
        for backend in ("cpu", "sim")
    )
    for place, cells in simulated.items():
        yield _row(*place, cells, emulated[place])


def _cells(experiment: Experiment, folder: Path) -> dict[tuple[str, str], list[CellSummary]]:
    """By workload and engine, the repeats in order: each has requests of its own."""
    named = experiment.model_copy(update={"name": f"{experiment.name}_{experiment.backend}"})
    found: dict[tuple[str, str], list[CellSummary]] = {}
    for cell in sorted(run_experiment(named, folder, Silence()).summary.cells, key=lambda cell: cell.repeat):
        found.setdefault((cell.workload, cell.engine), []).append(cell)
    return found


def _row(workload: str, engine: str, simulated: Sequence[CellSummary], emulated: Sequence[CellSummary]) -> Row:
    """Of the repeats that were valid, on both sides."""
    valid = [index for index, cell in enumerate(emulated) if cell.status is Status.OK]
    known = [simulated[index].metrics[RATE] for index in valid or range(len(simulated))]
    if not valid:
        return Row(workload, engine, median(known), note=emulated[0].error or "no repeat was valid")
    seen = [emulated[index].metrics[RATE] for index in valid]
    ratios = [have / said for have, said in zip(seen, known, strict=True)]
    missing = f"{len(emulated) - len(valid)} of {len(emulated)} repeats not valid" if len(valid) < len(emulated) else ""
    return Row(workload, engine, median(known), median(seen), median(ratios), max(ratios) / min(ratios), missing)


def disorder(told: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Pairs of engines, by workload, of which the simulation puts the wrong one ahead."""
    wrong = []
    for first in told:
        for second in told:
            if first.workload != second.workload or first.emulated is None or second.emulated is None:
                continue
            if first.simulated > second.simulated * (1 + TIE) and first.emulated < second.emulated:
                wrong.append((first.workload, first.engine, second.engine))
    return wrong


def main(as_json: bool) -> None:
    told = rows()
    wrong = disorder(told)
    if as_json:
        print(json.dumps({"rows": list(map(asdict, told)), "wrong_order": wrong}))
        return
    print("\n".join(map(_line, told)))
    ratios = [abs(row.ratio - 1) for row in told if row.ratio is not None]
    if ratios:
        print(
            f"{len(ratios)} of {len(told)} compared; the furthest apart {max(ratios):.1%}, median {median(ratios):.1%}"
        )
    for at, first, second in wrong:
        print(f"{at}: {first} is simulated ahead of {second}, and was not")
    if not wrong:
        print(f"the same order everywhere (engines within {TIE:.0%} have none)")


def _line(row: Row) -> str:
    start = f"{row.workload:<7} {row.engine:<19} {row.simulated:8.3f} tokens/s simulated"
    if row.emulated is None:
        return f"{start}; not valid: {row.note}"
    end = f"; {row.note}" if row.note else ""
    return f"{start}, {row.emulated:8.3f} emulated, ratio {row.ratio:.3f} (repeats within {row.spread:.3f}){end}"
