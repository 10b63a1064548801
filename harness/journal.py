"""The journal of a cell: everything a decision depended on, and a fingerprint of what was decided.

One JSON line per submission and per step, gzip-compressed. `replay` feeds them to a fresh core and compares plans: the
proof that scheduling is a pure function of what is written here.
"""

import gzip
import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.core.scheduler import EngineCore
from engines.core.stretch import Grown, Stretch
from engines.core.types import Batch, Guard, GuardAnswer, Mode, RequestSpec, StepPlan, StepResult, UnitTimes
from results.files import publish, temporary_beside

FORMAT = 1
_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make a new encoder for every line
_BOOLS = ("false", "true")


class Journal:
    """Appends to a temporary file; it gets its name when closed, so that a half-written one is never read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = temporary_beside(path)
        self._file = gzip.open(self._temporary, "wt", encoding="utf-8", compresslevel=3)  # noqa: SIM115 - open as long as the cell runs
        self._needs_tokens = False
        self._write({"format": FORMAT})

    def submitted(self, spec: RequestSpec) -> None:
        self._needs_tokens = self._needs_tokens or bool(spec.stop_ids)
        self._write(
            {"submit": [spec.request_id, spec.prompt_tokens, spec.max_new_tokens], "stop": sorted(spec.stop_ids)}
        )

    def step(self, now_s: float, plan: StepPlan, result: StepResult) -> None:
        """Written out by hand: an encoder takes longer to find out what there is."""
        parts = [f'{{"now_s":{now_s!r},"plan":"{fingerprint(plan)}","sampled":{len(result.tokens)}']
        if self._needs_tokens:  # otherwise lengths decide, never content
            parts.append(f'"tokens":{_encode(list(result.tokens))}')
        if plan.mode is Mode.PLACED:  # how long units were busy may decide what is placed where
            units = result.units
            busy_s = [units.gpu_s, units.cpu_s, units.h2d_s, units.d2h_s, units.disk_s]
            parts.append(f'"busy_s":{_encode(busy_s)}')
        if result.answers:
            answers = [f"[{guard[0]},{guard[1]},{_BOOLS[ready]}]" for guard, ready in result.answers]
            parts.append(f'"answers":[{",".join(answers)}]')
        if result.finished_cohorts:
            parts.append(f'"finished_cohorts":[{",".join(map(str, result.finished_cohorts))}]')
        self._file.write(",".join(parts) + "}\n")

    def stretch(self, stretch: Stretch) -> None:
        """A line per step, as `step` would have written it. Nobody in it may be ended by a token."""
        sampled = len(stretch.request_ids)
        self._file.write(
            "".join(
                [
                    f'{{"now_s":{now_s!r},"plan":"{print_}","sampled":{sampled}}}\n'
                    for now_s, print_ in zip(stretch.repeats.decided_s, fingerprints(stretch), strict=True)
                ]
            )
        )

    def close(self) -> None:
        if self._file.closed:
            return
        self._file.close()
        publish(self._temporary, self._path)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(_encode(line) + "\n")


@dataclass(frozen=True, slots=True)
class Replay:
    steps: int
    first_difference: int | None  # step whose plan came out differently


def replay(path: Path, core: EngineCore) -> Replay:
    """Run a journal through a fresh core of the same configuration. It is read line by line, however long it is."""
    steps = 0
    for line in _read(path):
        if "submit" in line:
            request_id, prompt_tokens, max_new_tokens = line["submit"]
            core.submit(RequestSpec(request_id, prompt_tokens, max_new_tokens, frozenset(line["stop"])))
        elif "now_s" in line:
            steps += 1
            plan = core.schedule(line["now_s"])
            if plan is None or fingerprint(plan) != line["plan"]:
                return Replay(steps, steps)
            core.commit(plan, _result(line))
    return Replay(steps, None)


def fingerprint(plan: StepPlan) -> str:
    """64 bits over every number of the plan; the same on every machine and Python."""
    changes = plan.changes
    numbers = [plan.step, len(plan.batches), len(plan.moves), len(plan.cohorts)]
    for batch in plan.batches:
        _add_batch(numbers, batch)
    for column in (changes.ends, changes.grown_slots, changes.grown_blocks):
        numbers += (len(column), *column)
    for start in changes.starts:
        numbers += (3, start.slot, start.request_id, start.tier)
    for move in plan.moves:
        numbers += (4, move.request_id, move.source, move.target, move.tokens)
        numbers += (len(move.source_blocks), *move.source_blocks, len(move.target_blocks), *move.target_blocks)
    for cohort in plan.cohorts:
        number, slots, positions, layer, patience_us = cohort
        numbers += (3, number, layer, patience_us, len(slots), *slots, len(positions), *positions)
    numbers += (len(plan.preempted), *plan.preempted, len(plan.admitted), *plan.admitted)
    if plan.found_tokens:  # nothing was found in plans of older journals, and their fingerprints stay
        numbers.append(plan.found_tokens)
    digest = hashlib.blake2b(array("q", numbers).tobytes(), digest_size=8)
    digest.update(plan.mode.value.encode())
    if plan.places is not None:
        digest.update(repr(plan.places).encode())
    return digest.hexdigest()


def fingerprints(stretch: Stretch) -> Iterator[str]:
    """Of each step's plan. Step and positions count up, and now and then blocks are given; the rest stays."""
    numbers, counting_up = _numbers(stretch)
    mode = stretch.plan.mode.value.encode()
    nothing = _changes((), ()) + mode
    grown: dict[int, list[Grown]] = {1: []}
    for each in stretch.grown:
        grown.setdefault(each.step, []).append(each)
    for step in range(1, len(stretch) + 1):
        ends = stretch.plan.changes.ends if step == 1 else ()
        tail = _changes(ends, grown[step]) + mode if step in grown else nothing
        yield hashlib.blake2b(numbers.tobytes() + tail, digest_size=8).hexdigest()
        numbers += counting_up


def _numbers(stretch: Stretch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of the first plan up to its batch, and what each of them grows by per step."""
    [batch] = stretch.plan.batches
    decodes, host = len(batch.decode_slots), len(batch.host_slots)
    numbers = [stretch.plan.step, 1, 0, 0]
    _add_batch(numbers, batch)
    counting_up = np.zeros(len(numbers), np.int64)
    counting_up[0] = 1
    counting_up[6 + decodes : 6 + 2 * decodes] = 1
    counting_up[8 + 2 * decodes + host : 8 + 2 * decodes + 2 * host] = 1
    return np.array(numbers, np.int64), counting_up


def _changes(ends: Sequence[int], grown: Sequence[Grown]) -> bytes:
    """Some slots ended, some grew, nobody was preempted or admitted."""
    slots, blocks = [each.slot for each in grown], [each.block for each in grown]
    return array("q", [len(ends), *ends, len(slots), *slots, len(blocks), *blocks, 0, 0]).tobytes()


def _add_batch(numbers: list[int], batch: Batch) -> None:
    for column in (batch.decode_slots, batch.decode_positions, batch.host_slots, batch.host_positions):
        numbers += (len(column), *column)
    numbers.append(len(batch.prefills))
    for chunk in batch.prefills:
        numbers += (chunk.slot, chunk.request_id, chunk.start, chunk.length, chunk.samples, chunk.tier)


def _result(line: dict[str, Any]) -> StepResult:
    tokens = line.get("tokens") or [0] * line["sampled"]
    answers = tuple(GuardAnswer(Guard(cohort, layer), ready) for cohort, layer, ready in line.get("answers", ()))
    finished = tuple(line.get("finished_cohorts", ()))
    return StepResult(tokens, 0.0, 0.0, UnitTimes(*line.get("busy_s", ())), answers, finished)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        header = json.loads(next(file))
        if header.get("format") != FORMAT:
            raise ValueError(f"{path}: journal format {header.get('format')}, this version reads {FORMAT}")
        for text in file:
            yield json.loads(text)
