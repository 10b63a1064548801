"""`harness bench sim`: how fast the simulator serves, with everything on that a run has: driver, scheduler core,
policy, journal, request and step records, predictions, operator sums and the timeline of the first steps.

Iterations per second in the loads of the shipped experiments, repeats interleaved over the engines; then cells of many
requests, each in a fresh process, for time and memory per request. What a decision alone costs: bench_scheduler.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.plan import CellSpec

REPEATS = 3
LOADS = (  # experiment, workload, requests of it
    ("t4_llama2", "chat", 300),
    ("t4_llama2", "long_output-200", 100),
    ("a10_llama31", "chat", 300),
    ("a10_llama31", "long_output-200", 200),
)
GOALS_PER_S = {"gpu_only": 20_000.0, "neo": 5_000.0, "apex": 5_000.0}
REQUESTS_VARIABLE = "HARNESS_BENCH_SIM_REQUESTS"  # sizes of the large cells, with commas between; a million, say
SIZES = "20000,100000"
MANY = {"name": "many", "kind": "long_output", "prompt": 12, "output": 6, "jitter": 0.33, "rate": 60}  # a T4 holds it

# The peak of a process itself: what getrusage says of a child may be its parent's.
CHILD = """
import sys
from harness.cell import main
sys.stdout = sys.stderr
main()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024, file=sys.__stdout__)
"""


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over the repeats. `per_s_each`: iterations per second by the wall clock, of every repeat."""

    experiment: str
    workload: str
    engine: str
    requests: int
    iterations: int
    rows_mean: float
    wall_s: float
    cpu_s: float
    per_s: float
    per_s_each: tuple[float, ...]
    goal_per_s: float | None


@dataclass(frozen=True, slots=True)
class Scale:
    """One cell from start to end in a process of its own, judging and summary included."""

    engine: str
    requests: int
    wall_s: float
    requests_per_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class _Served:
    iterations: int
    rows_mean: float
    wall_s: float
    cpu_s: float


def speeds(
    loads: Sequence[tuple[str, str, int]] = LOADS, engines: Sequence[str] = tuple(GOALS_PER_S), repeats: int = REPEATS
) -> Iterator[Speed]:
    for experiment, workload, requests in loads:
        specs = {engine: cell_of(experiment, engine, workload, requests) for engine in engines}
        found: dict[str, list[_Served]] = {engine: [] for engine in engines}
        for _ in range(repeats):
            for engine, spec in specs.items():
                found[engine].append(serve_once(spec))
        for engine, served in found.items():
            yield _speed(experiment, specs[engine].workload.name, engine, requests, served)


def cell_of(experiment: str, engine: str, workload: str, requests: int) -> CellSpec:
    """The first cell of a shipped experiment with this engine and this workload, made shorter or longer."""
    from harness.config import load_experiment
    from harness.plan import expand

    cells = expand(load_experiment(experiment, (), {}), "sim")
    cell = next(each for each in cells if each.engine.name == engine and each.workload.name == workload)
    options = cell.workload.options | {"requests": requests}
    return replace(cell, workload=replace(cell.workload, options=options))


def serve_once(spec: CellSpec) -> _Served:
    """From the first look at the clock until every record is on disk."""
    from harness.build import build
    from harness.cell import Records
    from harness.driver import serve
    from harness.recorder import RequestRecorder

    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder), None)
        cell = build(spec, Path(folder), records.step, records.steps)
        cell.adapter.start()
        recorder = RequestRecorder(records.request, spec.measure.warmup_requests)
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        serve(cell.adapter, cell.arrivals, cell.clock, recorder, cell.prompts)
        cell.adapter.close()
        metrics = records.close().metrics
        wall_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    return _Served(int(metrics["steps"]), metrics["decode_rows_mean"], wall_s, cpu_s)


def _speed(experiment: str, workload: str, engine: str, requests: int, served: Sequence[_Served]) -> Speed:
    each = tuple(one.iterations / one.wall_s for one in served)
    wall_s, cpu_s = median(one.wall_s for one in served), median(one.cpu_s for one in served)
    first = served[0]
    return Speed(
        experiment,
        workload,
        engine,
        requests,
        first.iterations,
        first.rows_mean,
        wall_s,
        cpu_s,
        median(each),
        each,
        GOALS_PER_S.get(engine),
    )


def sizes(environment: Mapping[str, str] = os.environ) -> list[int]:
    return [int(size) for size in environment.get(REQUESTS_VARIABLE, SIZES).split(",")]


def scale(engine: str, requests: int) -> Scale:
    spec = cell_of("t4_llama2", engine, "chat", requests)
    many = replace(spec.workload, name="many", options=MANY | {"requests": requests})
    spec = replace(spec, workload=many, draws=0)  # one machine is enough
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spec.json").write_text(spec.to_json())
        begin_s = time.perf_counter()
        child = [sys.executable, "-c", CHILD, folder]
        ended = subprocess.run(child, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
        wall_s = time.perf_counter() - begin_s
    return Scale(engine, requests, wall_s, requests / wall_s, int(ended.stdout))


def main(as_json: bool) -> None:
    say: Callable[[str], None] = (lambda line: None) if as_json else (lambda line: print(line, flush=True))
    measured, large = [], []
    for speed in speeds():
        measured.append(speed)
        say(_line(speed))
    for requests in sizes():
        large.append(scale("gpu_only", requests))
        say(_scale_line(large[-1]))
    if as_json:
        rows: dict[str, Any] = {"rows": [asdict(each) for each in measured], "scale": [asdict(each) for each in large]}
        print(json.dumps({"label": "measured on this machine, wall clock"} | rows))


def _line(speed: Speed) -> str:
    goal = "" if speed.goal_per_s is None else f" (goal {speed.goal_per_s:,.0f})"
    return (
        f"{speed.experiment} {speed.workload} {speed.engine}: {speed.per_s:,.0f} iterations/s{goal}, "
        f"{min(speed.per_s_each):,.0f} to {max(speed.per_s_each):,.0f}; {speed.iterations:,} iterations of "
        f"{speed.rows_mean:.1f} decodes in {speed.wall_s:.2f} s ({speed.cpu_s:.2f} s of CPU)"
    )


def _scale_line(found: Scale) -> str:
    return (
        f"{found.engine}, {found.requests:,} requests: {found.wall_s:.1f} s, {found.requests_per_s:,.0f} requests/s, "
        f"peak {found.peak_bytes / 2**20:,.0f} MiB"
    )
