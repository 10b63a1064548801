"""Adds up what a cell's ops took and what they read or carried, operator by operator, over its whole run.

Ops come from the executor while a step runs, one by one or many alike at once; what they worked on is in the step's
plan, so that bytes are worked out when the step has ended.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from engines.backends.op_times import OpSink
from engines.core.cost import CostTable, Work, work_of
from engines.core.memory import ModelSizes
from engines.core.ops import Op
from engines.core.placement import Placement
from engines.core.roofline import Roofline
from engines.core.stretch import Stretch
from engines.core.traffic import WEIGHTS_ONLY, bytes_by_work, bytes_of, operator_of
from engines.core.types import Move, StepPlan, StepResult
from harness.adapter import StepSight
from results.operator_rows import OperatorRow

MOST_KEPT = 4096  # programs come and go with the shapes of plans


@dataclass(slots=True)
class _Sum:
    op: Op  # the first of them; its identity is the key, so it has to stay
    bytes_each: float | None  # None: it depends on the rows
    bytes_by_work: Callable[[Work], float]
    ops: int = 0
    seconds: float = 0.0
    bytes: float = 0.0


class OperatorRecorder:
    """Told of ops one by one, when called, and passes them on to the timeline; or of many alike at once."""

    def __init__(self, sizes: ModelSizes, timeline: OpSink) -> None:
        self.timeline = timeline
        self._sizes = sizes
        self._ops: list[tuple[Op, float]] = []  # of the step at hand
        self._sums: dict[int, _Sum] = {}
        self._rows: dict[tuple[str, str], OperatorRow] = {}

    def __call__(self, step: int, op: Op, start_s: float, end_s: float) -> None:
        self._ops.append((op, end_s - start_s))
        self.timeline(step, op, start_s, end_s)

    def alike(self, op: Op, count: int, seconds: float, work: Work) -> None:
        """So many ops like this one took so long together, each with such rows."""
        if op.move >= 0:
            self._ops.append((op, seconds))  # the plan knows what moved
            return
        total = self._sums.get(id(op)) or self._open(op, work)
        each = total.bytes_each
        total.ops += count
        total.seconds += seconds
        total.bytes += count * (total.bytes_by_work(work) if each is None else each)

    def alike_steps(self, op: Op, count: int, seconds: Sequence[float], works: Sequence[Work]) -> None:
        """The same for each step of a stretch. Added up one by one: a sum depends on its order."""
        total = self._sums.get(id(op)) or self._open(op, works[0])
        total.ops += count * len(works)
        took_s, carried, each = total.seconds, total.bytes, total.bytes_each
        for step_s in seconds:
            took_s += step_s
        for work in works:
            carried += count * (total.bytes_by_work(work) if each is None else each)
        total.seconds, total.bytes = took_s, carried

    def stretch(self, stretch: Stretch, scheduler_s: float) -> None:
        """Told by the executor."""

    def step(self, sight: StepSight) -> None:
        """All ops since the last step were of this one."""
        if not self._ops:
            return
        ops, self._ops = self._ops, []
        works = _Works(sight.plan, sight.result)
        for op, count, seconds in _grouped(ops):
            self._add(op, count, seconds, works.of(op), sight.plan.moves)

    def rows(self) -> tuple[OperatorRow, ...]:
        """The longest first."""
        self._fold()
        return tuple(sorted(self._rows.values(), key=lambda row: (-row.seconds, row.operator, row.unit)))

    def _add(self, op: Op, count: int, seconds: float, work: Work, moves: tuple[Move, ...]) -> None:
        total = self._sums.get(id(op)) or self._open(op, work)
        total.ops += count
        total.seconds += seconds
        each = total.bytes_each
        if each is None:
            each = bytes_of(op, work, moves, self._sizes) if op.move >= 0 else total.bytes_by_work(work)
        total.bytes += count * each

    def _open(self, op: Op, work: Work) -> _Sum:
        if len(self._sums) >= MOST_KEPT:
            self._fold()
        each = bytes_of(op, work, (), self._sizes) if op.kind in WEIGHTS_ONLY else None
        total = self._sums[id(op)] = _Sum(op, each, bytes_by_work(op, self._sizes))
        return total

    def _fold(self) -> None:
        for total in self._sums.values():
            key = operator_of(total.op), total.op.unit.name
            row = self._rows.get(key, OperatorRow(*key, 0, 0.0, 0.0))
            self._rows[key] = OperatorRow(
                *key, row.ops + total.ops, row.seconds + total.seconds, row.bytes + total.bytes
            )
        self._sums.clear()


class _Works:
    """What the ops of one step worked on: rows of a batch, or a cohort's."""

    def __init__(self, plan: StepPlan, result: StepResult) -> None:
        landed = sum([len(each.slots) for each in plan.cohorts if each.cohort in result.finished_cohorts])
        works = [work_of(batch) for batch in plan.batches]
        self._batches = [work._replace(sampled=work.sampled + landed) for work in works] if landed else works
        self._cohorts = {
            each.cohort: Work(host_rows=len(each.slots), host_kv_tokens=sum(each.positions) + len(each.slots))
            for each in plan.cohorts
        }

    def of(self, op: Op) -> Work:
        return self._batches[op.batch] if op.guard is None else self._cohorts[op.guard.cohort]


def _grouped(ops: list[tuple[Op, float]]) -> Iterable[tuple[Op, int, float]]:
    """Ops that carry the same, which most layers' do, so that their bytes are asked once. By identity, which is enough:
    to compare enums and tuples for each op takes longer than all the rest.
    """
    groups: dict[tuple[object, ...], tuple[Op, int, float]] = {}
    for op, seconds in ops:
        cohort = -1 if op.guard is None else op.guard.cohort
        key = (id(op.kind), op.batch, op.move, id(op.parts), op.share, id(op.rows), op.packed, cohort)
        before = groups.get(key)
        groups[key] = (op, 1, seconds) if before is None else (before[0], before[1] + 1, before[2] + seconds)
    return groups.values()


def sizes_told(sizes: ModelSizes, costs: CostTable | None, placement: Placement) -> ModelSizes:
    """Of the model whose seconds are told: a small one run in a large one's proportions counts as the large one."""
    packed_share = sizes.kv_bytes(packed=placement.compressed_kv) / sizes.kv_bytes_per_token
    if isinstance(costs, Roofline):
        told = costs.model
        sizes = replace(
            sizes,
            matrices=told.matrices,
            bytes_per_parameter=round(told.bytes_per_parameter),
            kv_bytes_per_token=told.kv_bytes_per_token * told.tokens_each,
            head_bytes=round(told.head_parameters * told.bytes_per_parameter),
        )
    return replace(sizes, kv_bytes_per_token=round(sizes.kv_bytes_per_token * packed_share))
