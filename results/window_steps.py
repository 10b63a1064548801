"""One cell's serving window, cut into what every moment of it was spent on, step by step. The parts add up to it.

A step's time is cut by what the accelerator waited for: its own busy time; what the host, then the links, were busy for
beyond it; work of theirs that could have run beside other work and did not; and time in which no unit was busy at all.
Between steps there is time with a request in the system, and time without one. Why two cells differ is waterfall.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from results.errors import ResultsError
from results.files import read_json
from results.readers import iter_requests, iter_steps
from results.schema import SUMMARY_FILE, CellSummary, Status

Floats = npt.NDArray[np.float64]

RATE = "output_tokens_per_s"
WHOLE_RUN_RATE = f"{RATE}_whole_run"
COHORT_MODE = "async_overlap"  # whose host rows deliver beside the steps, and are in no step's rows
HINGES = tuple(2**power for power in range(4, 13))  # rows at which a matrix may start to cost more

_BUSY = ("gpu_busy_s", "cpu_busy_s", "h2d_busy_s", "d2h_busy_s", "disk_busy_s")
_ROWS = ("decode_rows", "prefill_rows", "running", "waiting")
_WORK = ("prefill_tokens", "accel_blocks_used", "host_blocks_used", "moved_tokens")
_STEP_COLUMNS = ("started_s", "ended_s", "mode", *_BUSY, *_ROWS, *_WORK)
_REQUEST_COLUMNS = ("arrival_s", "first_token_s", "last_token_s", "prompt_tokens", "preemptions", "status")


@dataclass(frozen=True, slots=True)
class Span:
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class StepParts:
    """Seconds per step, weighted by how much of it lies in the window. All but the gaps add up to the steps' time.

    Of what could have been hidden behind other work (`host_hideable`, `link_hideable`), the share `unhidden` was not.
    """

    weight: Floats  # 1, or less at the window's edges
    took: Floats
    accelerator: Floats
    host_excess: Floats  # busy for longer than the accelerator
    link_excess: Floats  # links and disk, busy for longer than either
    host_hideable: Floats
    link_hideable: Floats
    waited: Floats  # time of the step beyond its busiest unit, as far as other units' work explains it
    nothing: Floats  # time of the step that is longer than all units' work laid end to end
    gap: Floats  # before the step, with a request in the system; what follows the last one is the last one's
    modes: Floats  # [steps, modes of either cell]: 1 at a step's own
    work: Floats  # [steps, WORK]: what a step worked on

    @property
    def unhidden(self) -> float:
        hideable = float(self.host_hideable.sum() + self.link_hideable.sum())
        return float(self.waited.sum()) / hideable if hideable > 0 else 0.0


LINEAR = ("tokens", *(f"tokens beyond {rows}" for rows in HINGES))
ATTENTION = ("prefill_tokens", "accel_blocks_used")
WORK = (*LINEAR, *ATTENTION, "host_blocks_used", "moved_tokens")


@dataclass(frozen=True, slots=True)
class FewRows:
    """Why steps had no more rows: how many of them for each reason."""

    capped: float  # requests waiting, and as many admitted, or tokens in the step, as may be
    held_back: float  # else, requests admitted and left out of the step, with KV on the host: it would take too long
    no_memory: float  # else, requests waiting
    nobody: float  # else: every request was aboard


@dataclass(frozen=True, slots=True)
class WindowSteps:
    """`rate` is the cell's own figure over the window; tokens are what it makes of it."""

    summary: CellSummary
    kind: str  # plateau, or whole run
    rate: float
    window: Span
    empty_s: float  # without a request in the system
    parts: StepParts
    decode_rows: float
    prefill_tokens: float
    recomputed_share: float  # of the prefill tokens of the whole run
    prompt_only_steps: float
    fewer_because: FewRows
    has_cohorts: bool

    @property
    def length_s(self) -> float:
        return self.window.end_s - self.window.start_s

    @property
    def tokens(self) -> float:
        return self.rate * self.length_s

    @property
    def steps(self) -> float:
        return float(self.parts.weight.sum())


def read_pair(before: Path, after: Path) -> tuple[WindowSteps, WindowSteps]:
    """Over both plateaus, or over both whole runs: different phases of a load are not compared."""
    tables = [_Tables.read(path) for path in (before, after)]
    plateau = all(table.summary.metrics.get("window_is_plateau") == 1.0 for table in tables)
    modes = sorted({str(mode) for table in tables for mode in np.unique(table.steps["mode"])})
    first, second = (_cut(table, modes, plateau) for table in tables)
    return first, second


@dataclass(frozen=True, slots=True)
class _Tables:
    path: Path
    summary: CellSummary
    requests: dict[str, Floats]
    steps: dict[str, Floats]

    @classmethod
    def read(cls, path: Path) -> _Tables:
        summary = _summary(path)
        requests = _columns(iter_requests(path, _REQUEST_COLUMNS), _REQUEST_COLUMNS, path, "requests")
        steps = _columns(iter_steps(path, _STEP_COLUMNS), _STEP_COLUMNS, path, "steps")
        order = np.argsort(steps["started_s"], kind="stable")
        return cls(path, summary, requests, {name: column[order] for name, column in steps.items()})


def _summary(cell_dir: Path) -> CellSummary:
    path = cell_dir / SUMMARY_FILE
    summary = CellSummary.from_json(read_json(path), str(path))
    if summary.status is not Status.OK:
        raise ResultsError(f"{cell_dir}: the cell is {summary.status}: it has no throughput to explain")
    return summary


def _columns(batches: Iterator[object], names: tuple[str, ...], cell_dir: Path, what: str) -> dict[str, Floats]:
    """Numbers as floats, gaps as NaN; words as they are."""
    found: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in names}
    for batch in batches:
        for name in names:
            found[name].append(batch[name].to_numpy(zero_copy_only=False))  # type: ignore[index]
    if not any(map(len, found[names[0]])):
        raise ResultsError(f"{cell_dir}: it has no {what}: its engine does not say what it did, so nothing explains it")
    return {
        name: np.concatenate(columns) if name in ("mode", "status") else np.concatenate(columns).astype(np.float64)
        for name, columns in found.items()
    }


def _plateau(summary: CellSummary) -> Span:
    start_s = summary.metrics["window_start_s"]
    return Span(start_s, start_s + summary.metrics["window_s"])


def _whole_run(requests: dict[str, Floats]) -> Span:
    ended = requests["last_token_s"][(requests["status"] == "finished") & ~np.isnan(requests["last_token_s"])]
    return Span(float(requests["arrival_s"].min()), float(ended.max(initial=-np.inf)))


def _cut(table: _Tables, modes: Sequence[str], plateau: bool) -> WindowSteps:
    summary, requests, steps = table.summary, table.requests, table.steps
    rate = summary.metrics.get(RATE if plateau else WHOLE_RUN_RATE, 0.0)
    window = _plateau(summary) if plateau else _whole_run(requests)
    if not (rate > 0 and window.end_s > window.start_s):
        raise ResultsError(f"{table.path}: no {WHOLE_RUN_RATE} in its summary: there is no throughput to explain")
    if not ((steps["ended_s"] > window.start_s) & (steps["started_s"] < window.end_s)).any():
        raise ResultsError(f"{table.path}: none of its steps lies in the window of its throughput")
    started, ended = _apart(steps, window)
    from_s = np.concatenate([[window.start_s], ended[:-1]])
    pending_s = _PendingTime(requests, window)
    took_s = steps["ended_s"] - steps["started_s"]
    weight = np.divide(ended - started, took_s, out=np.zeros(len(took_s)), where=took_s > 0).clip(0, 1)
    gap_s = pending_s(started) - pending_s(from_s)
    gap_s[-1] += pending_s(window.end_s) - pending_s(ended[-1])
    empty_s = window.end_s - window.start_s - float((ended - started).sum() + gap_s.sum())
    decoding = steps["decode_rows"] > 0
    return WindowSteps(
        summary=summary,
        kind="plateau" if plateau else "whole run",
        rate=rate,
        window=window,
        empty_s=max(0.0, empty_s),
        parts=_parts(steps, modes, weight, ended - started, gap_s),
        decode_rows=float(weight @ steps["decode_rows"]),
        prefill_tokens=float(weight @ steps["prefill_tokens"]),
        recomputed_share=_recomputed_share(requests, steps),
        prompt_only_steps=float(weight[~decoding].sum()),
        fewer_because=_few_rows(summary, steps, weight),
        has_cohorts=bool((steps["mode"] == COHORT_MODE).any()),
    )


def _apart(steps: dict[str, Floats], window: Span) -> tuple[Floats, Floats]:
    """Starts and ends within the window; of steps that overlap, the later one begins when the earlier one has ended."""
    started, ended = steps["started_s"], np.maximum.accumulate(steps["ended_s"])
    started = np.maximum(started, np.concatenate([[-np.inf], ended[:-1]]))
    started, ended = (np.clip(column, window.start_s, window.end_s) for column in (started, ended))
    return np.minimum(started, ended), ended


class _PendingTime:
    """How long until a moment there was some request in the system, from the window's start."""

    def __init__(self, requests: dict[str, Floats], window: Span) -> None:
        there = ~np.isnan(requests["last_token_s"])
        arrived, left = (np.clip(requests[name][there], window.start_s, window.end_s) for name in _PRESENCE)
        order = np.argsort(arrived, kind="stable")
        arrived, left = arrived[order], np.maximum.accumulate(left[order])
        begins = np.maximum(arrived, np.concatenate([[window.start_s], left[:-1]]))
        lengths = np.maximum(left - begins, 0.0)
        self._edges = np.column_stack([np.minimum(begins, left), left]).ravel()
        total = np.cumsum(lengths)
        self._until = np.column_stack([total - lengths, total]).ravel()

    def __call__(self, at_s: Floats | float) -> Floats:
        return np.asarray(np.interp(at_s, self._edges, self._until), dtype=np.float64)


_PRESENCE = ("arrival_s", "last_token_s")


def _parts(steps: dict[str, Floats], modes: Sequence[str], weight: Floats, took_s: Floats, gap_s: Floats) -> StepParts:
    """Busy sums of several devices or threads may exceed the step: a unit counts as busy for the whole of it then."""
    gpu, cpu, h2d, d2h, disk = (np.minimum(steps[name] * weight, took_s) for name in _BUSY)
    longest_link, links = np.maximum(np.maximum(h2d, d2h), disk), h2d + d2h + disk
    host_excess = np.maximum(cpu - gpu, 0.0)
    link_excess = np.maximum(longest_link - np.maximum(gpu, cpu), 0.0)
    beyond = np.maximum(took_s - gpu - host_excess - link_excess, 0.0)
    host_hideable, link_hideable = cpu - host_excess, links - link_excess
    waited = np.minimum(beyond, host_hideable + link_hideable)
    return StepParts(
        weight=weight,
        took=took_s,
        accelerator=gpu,
        host_excess=host_excess,
        link_excess=link_excess,
        host_hideable=host_hideable,
        link_hideable=link_hideable,
        waited=waited,
        nothing=beyond - waited,
        gap=gap_s,
        modes=np.column_stack([steps["mode"] == mode for mode in modes]) * weight[:, None],
        work=_work(steps) * weight[:, None],
    )


def _work(steps: dict[str, Floats]) -> Floats:
    tokens = steps["decode_rows"] + steps["prefill_tokens"]
    beyond = [np.maximum(tokens - rows, 0.0) for rows in HINGES]
    of_work = [steps[name] for name in (*ATTENTION, "host_blocks_used", "moved_tokens")]
    return np.column_stack([tokens, *beyond, *of_work])


def _few_rows(summary: CellSummary, steps: dict[str, Floats], weight: Floats) -> FewRows:
    rows = steps["decode_rows"] + steps["prefill_rows"]
    # A cohort's rows are aboard and in no step's batch: who is left out cannot be told there.
    held_back = (steps["running"] > rows) & (steps["host_blocks_used"] > 0) & (steps["mode"] != COHORT_MODE)
    waiting = steps["waiting"] > 0
    tokens = steps["decode_rows"] + steps["prefill_tokens"]
    capped = (steps["running"] >= _cap(summary, "max_batch")) | (tokens >= _cap(summary, "max_batch_tokens"))
    capped &= waiting
    rest = ~capped & ~held_back
    return FewRows(*(float(weight @ each) for each in (capped, held_back & ~capped, rest & waiting, rest & ~waiting)))


def _cap(summary: CellSummary, key: str) -> float:
    """Of an engine that does not say: always reached, since nothing is known of its memory then."""
    cap = summary.resolved.get(key)
    return float(cap) if isinstance(cap, int) else 0.0


def _recomputed_share(requests: dict[str, Floats], steps: dict[str, Floats]) -> float:
    """Of prefill tokens: those beyond the prompts. Without preemption nothing is computed twice."""
    computed = float(steps["prefill_tokens"].sum())
    if not computed or not requests["preemptions"].sum():
        return 0.0
    answered = ~np.isnan(requests["first_token_s"])
    return max(0.0, 1 - float(requests["prompt_tokens"][answered].sum()) / computed)
