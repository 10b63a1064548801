"""Steps that are taken at once leave behind what they would have, taken one by one: journal, records, sums, answers."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.backends.sim import SimExecutor
from engines.core.stretch import Repeats, Standing
from harness.bench_sim import cell_of
from harness.build import JOURNAL_FILE, build, core_for
from harness.cell import Records
from harness.driver import serve
from harness.journal import replay
from harness.plan import CellSpec
from harness.recorder import RequestRecorder
from results.store import read_requests, read_steps

TIGHT: dict[str, Any] = {"kind": "long_output", "prompt": 300, "output": 90, "jitter": 0.5, "requests": 16, "name": "w"}
SPARSE = TIGHT | {"prompt": 60, "rate": 0.7}
CLOSED = TIGHT | {"arrivals": {"kind": "closed_loop", "users": 3}}
CHAT: dict[str, Any] = {"kind": "chat", "rate": 0.4, "requests": 12, "name": "w"}
WORKLOADS = {"preempting": TIGHT | {"prompt": 100, "output": 300}, "sparse": SPARSE, "closed": CLOSED, "chat": CHAT}
ENGINES: dict[str, dict[str, Any]] = {
    "gpu_only": {},
    "swapping": {"preemption": "swap"},
    "chunk_by_chunk": {"admit": "chunk"},
    "keeping": {"keep_preempted_kv": True},
    "static_partition": {"host_share": 0.4},
    "neo": {},
    "apex": {},
    "weight_streaming": {},
}
KINDS = {"swapping": "gpu_only", "chunk_by_chunk": "gpu_only", "keeping": "gpu_only"}


def cell(engine: str, workload: str) -> CellSpec:
    spec = cell_of("t4_llama2", "gpu_only", "chat", 1)
    kind = replace(spec.engine, kind=KINDS.get(engine, engine), options=ENGINES[engine])
    return replace(spec, engine=kind, workload=replace(spec.workload, options=WORKLOADS[workload]))


def served(spec: CellSpec, folder: Path) -> dict[str, Any]:
    """All that is kept but what the scheduler took in real time."""
    folder.mkdir()
    records = Records(folder, None)
    built = build(spec, folder, records.step, records.steps)
    recorder = RequestRecorder(records.request, 3)
    serve(built.adapter, built.arrivals, built.clock, recorder, {})
    built.adapter.close()
    metrics = records.close().metrics
    assert built.operators is not None
    return {
        "journal": gzip.open(folder / JOURNAL_FILE, "rt").read(),
        "requests": read_requests(folder).to_dict("list"),
        "steps": read_steps(folder).drop(columns="scheduler_s").to_dict("list"),
        "metrics": {key: value for key, value in metrics.items() if "scheduler" not in key},
        "operators": built.operators.rows(),
        "spans": built.trace.spans,
    }


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("engine", ENGINES)
def test_nobody_can_tell(engine: str, workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = cell(engine, workload)
    at_once = served(spec, tmp_path / "at once")
    monkeypatch.delattr(SimExecutor, "repeat")
    one_by_one = served(spec, tmp_path / "one by one")
    if workload == "preempting" and engine in ("gpu_only", "keeping"):
        assert one_by_one["metrics"]["preemptions"] > 0
        assert (one_by_one["metrics"]["found_tokens"] > 0) is (engine == "keeping")
    for what, expected in one_by_one.items():
        assert str(at_once[what]) == str(expected), what


@pytest.mark.parametrize("engine", ["gpu_only", "static_partition"])
def test_most_steps_are_taken_at_once_and_replay(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison compares nothing."""
    spec = cell(engine, "chat")
    taken: list[int] = []
    repeat = SimExecutor.repeat

    def counted(executor: SimExecutor, stands: Standing, before_s: float | None) -> Repeats:
        repeats = repeat(executor, stands, before_s)
        taken.append(len(repeats))
        return repeats

    monkeypatch.setattr(SimExecutor, "repeat", counted)
    steps = len(served(spec, tmp_path / "cell")["steps"]["step"])
    assert sum(taken) > (steps - 200) * 0.6 > 100, "the first 200 are traced, op by op"
    replayed = replay(tmp_path / "cell" / JOURNAL_FILE, core_for(spec))
    assert (replayed.steps, replayed.first_difference) == (steps, None)
