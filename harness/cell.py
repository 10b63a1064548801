"""One cell in its own process: `python -m harness.cell CELL_DIR`. Reads spec.json, serves, writes the records.

The summary is written last, by rename: a cell without one did not finish. Progress goes to stdout as JSON lines.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engines.registry import is_policy
from harness.audit import audit
from harness.bands import draws_of
from harness.build import JOURNAL_FILE, Cell, build
from harness.collectors.steps import StepObservation, step_columns, write_trace
from harness.collectors.watch import MachineWatch
from harness.driver import serve
from harness.hindsight import judge
from harness.memory_use import peaks
from harness.metrics import Aggregator, Measured
from harness.parity import Answers, Sample, check, choose, write_answers
from harness.plan import CellSpec
from harness.recorder import RequestRecorder
from harness.saturating_cell import is_saturating, run_saturating
from results.parity_check import ParityCheck
from results.schema import TOKENS_FILE, CellSummary, Label
from results.store import RequestWriter, StepWriter, iter_steps, write_json
from workloads import realised

FLUSH_ROWS = 1000
PROGRESS_EVERY_S = 0.2
TRACE_FILE = "trace.json"


class Records:
    """Rows on their way to disk and into the aggregates, in bounded memory."""

    def __init__(self, cell_dir: Path, slo: dict[str, float] | None) -> None:
        self._requests = RequestWriter(cell_dir)
        self._steps = StepWriter(cell_dir)
        self._aggregator = Aggregator(slo)
        self._request_rows: list[dict[str, Any]] = []
        self._steps_ahead = _no_steps()
        self.output_tokens = 0  # of all requests, warm-up included: energy is spent on every one of them

    def request(self, row: dict[str, Any]) -> None:
        self.output_tokens += row["output_tokens"]
        self._request_rows.append(row)
        if len(self._request_rows) >= FLUSH_ROWS:
            self._flush_requests()

    def step(self, observation: StepObservation) -> None:
        for column, value in zip(self._steps_ahead.values(), observation, strict=True):
            column.append(value)
        if len(self._steps_ahead["step"]) >= FLUSH_ROWS:
            self._flush_steps()

    def steps(self, columns: dict[str, list[Any]]) -> None:
        """Flushed at the same rows as if they had come one by one: sums depend on their order."""
        for name, column in self._steps_ahead.items():
            column.extend(columns[name])
        while len(self._steps_ahead["step"]) >= FLUSH_ROWS:
            self._flush_steps()

    def close(self) -> Measured:
        self._flush_requests()
        self._flush_steps()
        self._requests.close()
        self._steps.close()
        return self._aggregator.result()

    def _flush_requests(self) -> None:
        rows, self._request_rows = self._request_rows, []
        if rows:
            self._requests.append_rows(rows)
            self._aggregator.add_requests(rows)

    def _flush_steps(self) -> None:
        columns = {name: _packed(column[:FLUSH_ROWS]) for name, column in self._steps_ahead.items()}
        self._steps_ahead = {name: column[FLUSH_ROWS:] for name, column in self._steps_ahead.items()}
        if len(columns["step"]):
            self._steps.append_columns(columns)
            self._aggregator.add_steps(columns)


def _packed(column: list[Any]) -> Any:
    """Numbers as an array, which parquet and sums take as it is; words and columns with gaps stay as they are."""
    return column if None in column or not column or isinstance(column[0], str) else np.array(column)


def _no_steps() -> dict[str, list[Any]]:
    return step_columns(())


class Progress:
    """A JSON line now and then: the parent draws, this process serves."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next_s = 0.0

    def __call__(self, ended: int, time_s: float) -> None:
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + PROGRESS_EVERY_S
        print(json.dumps({"event": "progress", "done": ended, "total": self._total, "time_s": time_s}), flush=True)


def run_cell(cell_dir: Path) -> CellSummary:
    spec = CellSpec.from_json((cell_dir / "spec.json").read_bytes())
    if is_saturating(spec):
        return run_saturating(spec, cell_dir, run_cell)
    slo = None if spec.slo is None else spec.slo.limits
    watch = MachineWatch(cell_dir, watching=spec.backend != "sim")  # before the launching thread claims its core
    records = Records(cell_dir, slo)
    cell = build(spec, cell_dir, records.step, records.steps)
    resolved = cell.adapter.start()
    no_token_ids = str(resolved.get("no_token_ids", ""))
    sample = choose(spec, cell.workload.requests, bool(cell.prompts), no_token_ids)
    recorder = RequestRecorder(records.request, spec.measure.warmup_requests, keep=sample.request_ids)
    cell.clock.restart()  # zero is when serving begins, not when the engine was built
    watch.start(cell.clock.now)
    begin_s = time.monotonic()
    try:
        serve(cell.adapter, cell.arrivals, cell.clock, recorder, cell.prompts, Progress(cell.arrivals.total))
    finally:
        wall_s = time.monotonic() - begin_s
        watched = watch.close()
        recorder.abandon("the run ended before this request did")
        cell.adapter.close()
        measured = records.close()
        write_trace(cell_dir / TRACE_FILE, cell.trace.spans, title=spec.cell_id, label=spec.label)
    watched = watched.per_output_token(records.output_tokens)
    seen = hindsight(spec, cell_dir)
    held = peaks(resolved, cell_dir)
    metrics = measured.metrics | watched.metrics | seen.metrics | held.metrics | {"cell_wall_s": wall_s}
    unavailable = measured.unavailable | watched.unavailable | seen.unavailable | held.unavailable
    measured = Measured(metrics, [*measured.notes, *watched.notes], unavailable)
    return _summary(spec, cell, resolved, measured, recorder, _parity(spec, cell_dir, cell, sample, recorder.answers))


def hindsight(spec: CellSpec, cell_dir: Path) -> Measured:
    """From the journal and the steps on disk."""
    if not is_policy(spec.engine.kind):
        return Measured({}, [], {"regret_share": "it decides unseen: there is no journal"})
    seen = judge(spec, cell_dir / JOURNAL_FILE, lambda: _step_seconds(cell_dir))
    return Measured({}, [], {"regret_share": seen}) if isinstance(seen, str) else Measured(seen.metrics(), [], {})


def _step_seconds(cell_dir: Path) -> dict[int, float]:
    took_s: dict[int, float] = {}
    for batch in iter_steps(cell_dir, ["step", "started_s", "ended_s"]):
        step, started_s, ended_s = (column.to_pylist() for column in batch.columns)
        took_s.update(zip(step, [end - start for start, end in zip(started_s, ended_s, strict=True)], strict=True))
    return took_s


def _parity(spec: CellSpec, cell_dir: Path, cell: Cell, sample: Sample, answers: Answers) -> ParityCheck:
    if answers:
        write_answers(cell_dir / TOKENS_FILE, cell.prompts, answers)
    return check(spec, sample, cell.prompts, answers)


def _summary(
    spec: CellSpec,
    cell: Cell,
    resolved: dict[str, object],
    measured: Measured,
    recorder: RequestRecorder,
    parity: ParityCheck,
) -> CellSummary:
    found = audit(spec, resolved, measured, recorder.breaches.sentences(), parity)
    return CellSummary(
        cell_id=spec.cell_id,
        engine=spec.engine.name,
        workload=spec.workload.name,
        backend=spec.backend,
        label=Label(spec.label),
        repeat=spec.repeat,
        status=found.status,
        metrics=found.measured.metrics,
        resolved=resolved | {"workload": asdict(realised(cell.workload)), "clipped": _clipping(cell)},
        notes=(*found.measured.notes, *_clipping_note(cell), *found.notes),
        unavailable=found.measured.unavailable,
        error=found.error,
        unfair=found.unfair,
        parity=parity,
        operators=() if cell.operators is None else cell.operators.rows(),
        draws=draws_of(spec),
    )


def _clipping(cell: Cell) -> dict[str, int] | None:
    return None if cell.workload.clipped is None else asdict(cell.workload.clipped)


def _clipping_note(cell: Cell) -> tuple[str, ...]:
    clipped = cell.workload.clipped
    if clipped is None or clipped.clipped_requests == 0:
        return ()
    return (
        f"{clipped.clipped_requests} of {len(cell.workload.requests)} requests were clipped to "
        f"{clipped.limit_tokens} tokens ({clipped.prompt_tokens_cut} prompt and {clipped.output_tokens_cut} output "
        f"tokens cut), for every engine alike",
    )


def main() -> None:
    cell_dir = Path(sys.argv[1])
    summary = run_cell(cell_dir)
    write_json(cell_dir / "summary.json", summary.to_json())


if __name__ == "__main__":
    main()
