"""`lower(plan)`: the one place where overlap is defined. One function per mode, memoised by the plan's shape.

An op names its unit, its layer, which rows it works on and what it waits for. Row sets are symbolic, so the list of ops
depends on the shape of a plan only, never on its numbers. Three interpreters: streams (cuda), threads (cpu), time lines
(sim).
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from engines.core.cost import CostTable, Work, link_unit, work_of
from engines.core.errors import UnsupportedPlanError
from engines.core.types import Guard, Mode, Move, Placement, StepPlan, Unit


class OpKind(Enum):
    MOVE = "move"  # one request's KV between tiers
    FIRST = "first"  # embedding, pre-attention of layer 0
    ATTENTION = "attention"
    HOST_ATTENTION = "host_attention"
    BETWEEN = "between"  # post-attention of this layer, pre-attention of the next
    LAST = "last"  # post-attention of the last layer, head, sampling


@dataclass(frozen=True, slots=True)
class Op:
    """`index` is its place in the list, `after` the indices it waits for. `batch` and `move` point into the plan."""

    index: int
    kind: OpKind
    unit: Unit
    layer: int
    after: tuple[int, ...]
    batch: int = 0
    move: int = -1
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """The ops of one shape of plan. `tally` counts equal ops: their cost is asked once per kind, not per layer."""

    ops: tuple[Op, ...]
    tally: tuple[tuple[Op, int], ...]  # one op of each (kind, unit, batch, move) and how many there are
    serial: bool  # every op waits for the one before it, so that nothing overlaps

    @staticmethod
    def of(ops: list[Op]) -> "Program":
        counts: dict[tuple[OpKind, Unit, int, int], tuple[Op, int]] = {}
        for op in ops:
            key = (op.kind, op.unit, op.batch, op.move)
            first, count = counts.get(key, (op, 0))
            counts[key] = (first, count + 1)
        serial = all(op.index == 0 or op.index - 1 in op.after for op in ops)
        return Program(tuple(ops), tuple(counts.values()), serial)


def lower(plan: StepPlan, placement: Placement) -> Program:
    if plan.mode is not Mode.GPU_ONLY or len(plan.batches) != 1 or plan.cohorts:
        raise UnsupportedPlanError(f"no lowering for {plan.mode.value} with {len(plan.batches)} batches yet")
    if not placement.all_resident:
        raise UnsupportedPlanError("gpu_only is lowered with every layer on the accelerator")
    return _gpu_only(len(placement.layers), tuple(map(link_unit, plan.moves)) if plan.moves else ())


@lru_cache(maxsize=256)
def _gpu_only(layers: int, move_units: tuple[Unit, ...]) -> Program:
    """One unified batch, layer after layer. Moves come first: blocks they vacate are written by this very step."""
    ops = _moves(move_units)
    moved = tuple(range(len(ops)))
    ops.append(Op(len(ops), OpKind.FIRST, Unit.GPU, 0, moved))
    for layer in range(layers):
        ops.append(Op(len(ops), OpKind.ATTENTION, Unit.GPU, layer, (len(ops) - 1,)))
        kind = OpKind.LAST if layer == layers - 1 else OpKind.BETWEEN
        ops.append(Op(len(ops), kind, Unit.GPU, layer, (len(ops) - 1,)))
    return Program.of(ops)


def _moves(units: tuple[Unit, ...]) -> list[Op]:
    """In order of the plan: a move may reuse blocks that an earlier one vacated, so each waits for the one before."""
    return [
        Op(index, OpKind.MOVE, unit, -1, (index - 1,) if index else (), move=index) for index, unit in enumerate(units)
    ]


def seconds_of(op: Op, work: Work, moves: tuple[Move, ...], costs: CostTable) -> float:
    """What an op costs by a table: the simulator's durations and the paces of the emulation are this one function."""
    match op.kind:
        case OpKind.FIRST:
            return costs.pre_attention_s(costs.gemm_rows(work))
        case OpKind.ATTENTION:
            return costs.accel_attention_s(work)
        case OpKind.HOST_ATTENTION:
            return costs.host_attention_s(work.host_rows, work.host_kv_tokens)
        case OpKind.BETWEEN:
            return costs.linear_s(costs.gemm_rows(work))
        case OpKind.LAST:
            return costs.post_attention_s(costs.gemm_rows(work)) + costs.head_s(work.sampled)
        case OpKind.MOVE:
            return costs.move_s(moves[op.move])


def durations(program: Program, plan: StepPlan, costs: CostTable) -> list[float]:
    """Seconds of each op, in order."""
    works = [work_of(batch) for batch in plan.batches]
    known = {
        (op.kind, op.batch, op.move): seconds_of(op, works[op.batch], plan.moves, costs) for op, _ in program.tally
    }
    return [known[op.kind, op.batch, op.move] for op in program.ops]


def place(program: Program, seconds: list[float], begin_s: float) -> list[float]:
    """List scheduling: when each op ends if it starts as soon as its unit and its dependencies allow."""
    free_s: dict[Unit, float] = {}
    ends_s: list[float] = []
    for op, duration_s in zip(program.ops, seconds, strict=True):
        start_s = free_s.get(op.unit, begin_s)
        for index in op.after:
            if ends_s[index] > start_s:
                start_s = ends_s[index]
        free_s[op.unit] = start_s + duration_s
        ends_s.append(start_s + duration_s)
    return ends_s


def makespan(program: Program, plan: StepPlan, costs: CostTable) -> tuple[float, list[float]]:
    """Seconds of the whole step, busy seconds per unit: as `place` has it, without visiting each layer if serial."""
    busy_s = [0.0] * len(Unit)
    works = [work_of(batch) for batch in plan.batches]
    for op, count in program.tally:
        busy_s[op.unit] += count * seconds_of(op, works[op.batch], plan.moves, costs)
    if program.serial:
        return sum(busy_s), busy_s
    return max(place(program, durations(program, plan, costs), 0.0)), busy_s
