"""`lower(plan)`: the one place where overlap is defined. One function per mode, memoised by the plan's shape.

An op names its unit, its layer, which rows it works on and what it waits for. Row sets are symbolic, so the list of ops
depends on the shape of a plan only, never on its numbers. Three interpreters: streams (cuda), threads (cpu), time lines
(sim).
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from engines.core.cost import CostTable, Work, link_unit, work_of
from engines.core.errors import UnsupportedPlanError
from engines.core.ops import AlikeOps, Op, OpKind, Price, Program, RowsOf
from engines.core.placed import lower_placed
from engines.core.placed_cost import placed_costs, placed_seconds_of
from engines.core.placement import Placement
from engines.core.stages import lower_staged
from engines.core.types import Batch, Mode, Move, StepPlan, Tier, Unit

UNITS = tuple(Unit)  # to walk through an Enum takes ten times as long


class BatchShape(NamedTuple):
    """What decides which ops a batch needs."""

    accel: bool  # any attention on the accelerator
    host: bool  # decode rows whose KV is on the host
    stages: bool  # prompt rows whose KV goes there
    reloads: bool  # and comes back for later chunks


def lower(plan: StepPlan, placement: Placement) -> Program:
    """The ops of a plan in which nothing depends on what happens meanwhile; passes with cohorts are run_pass's."""
    if plan.mode is Mode.PLACED:
        return lower_placed(plan, placement)
    if not placement.all_resident:
        raise UnsupportedPlanError(f"{plan.mode.value} is lowered with every layer on the accelerator")
    if placement.stages:
        return lower_staged(plan, placement)
    batches = len(plan.batches)
    if plan.mode is Mode.ASYMMETRIC and batches in (1, 2) and not plan.cohorts:
        waits_for_accel = False
    elif plan.mode in (Mode.GPU_ONLY, Mode.SEQUENTIAL, Mode.FULL_OVERLAP) and batches == 1 and not plan.cohorts:
        waits_for_accel = plan.mode is Mode.SEQUENTIAL
    else:
        raise UnsupportedPlanError(
            f"no lowering for {plan.mode.value} with {batches} batches and {len(plan.cohorts)} cohorts"
        )
    shapes = tuple([_shape(batch) for batch in plan.batches])
    move_units = tuple(map(link_unit, plan.moves)) if plan.moves else ()
    return _pipelined(len(placement.layers), move_units, shapes, waits_for_accel)


def _shape(batch: Batch) -> BatchShape:
    host_bound = [chunk.start for chunk in batch.prefills if chunk.tier is Tier.HOST]
    return BatchShape(
        accel=bool(batch.decode_slots or batch.prefills),
        host=bool(batch.host_slots),
        stages=bool(host_bound),
        reloads=any(host_bound),
    )


@lru_cache(maxsize=1024)
def _pipelined(
    layers: int, move_units: tuple[Unit, ...], shapes: tuple[BatchShape, ...], waits_for_accel: bool
) -> Program:
    """Batches take turns on the accelerator, layer by layer; what one leaves to the host overlaps the others' turns.

    With one batch the host attends while the accelerator does the same for its own rows, or, if it waits for that,
    after it. Moves come first: blocks they vacate are written by this very step.
    """
    ops = _moves(move_units)
    moved = tuple(range(len(ops)))
    lanes = [_Lane(ops, index, shape, waits_for_accel) for index, shape in enumerate(shapes)]
    for lane in lanes:
        lane.linear(OpKind.FIRST, 0, moved)
    for layer in range(layers):
        for lane in lanes:
            lane.attend(layer)
            lane.linear(OpKind.LAST if layer == layers - 1 else OpKind.BETWEEN, layer, ())
    return Program.of(ops)


class _Lane:
    """One batch on its way through the layers: writes its ops in the order in which one thread may launch them."""

    def __init__(self, ops: list[Op], batch: int, shape: BatchShape, waits_for_accel: bool) -> None:
        self._ops = ops
        self._batch = batch
        self._shape = shape
        self._waits_for_accel = waits_for_accel
        self._fresh = -1  # the op that made query, key and value of the layer at hand
        self._attended: tuple[int, ...] = ()  # what has to end before they are used
        self._rows = -1  # host attention in flight

    def linear(self, kind: OpKind, layer: int, after: tuple[int, ...]) -> None:
        shape = self._shape
        self._fresh = self._add(kind, Unit.GPU, layer, (*after, *self._attended))
        if kind is OpKind.LAST:
            return
        layer = 0 if kind is OpKind.FIRST else layer + 1
        self._attended = (self._fresh,)
        if shape.host and not self._waits_for_accel:
            self._hand_over(layer, self._fresh)
        if shape.reloads:
            back = self._add(OpKind.PROMPT_TO_ACCEL, Unit.H2D, layer, (self._fresh,))
            self._attended = (*self._attended, back)

    def attend(self, layer: int) -> None:
        shape, ends = self._shape, []
        if shape.accel:
            ends.append(self._add(OpKind.ATTENTION, Unit.GPU, layer, self._attended))
        if shape.host and self._waits_for_accel:
            self._hand_over(layer, ends[-1] if ends else self._fresh)
        if shape.stages:  # the next layer's KV needs the stage
            ends.append(self._add(OpKind.PROMPT_TO_HOST, Unit.D2H, layer, (self._fresh,)))
        if shape.host:
            ends.append(self._add(OpKind.ROWS_TO_ACCEL, Unit.H2D, layer, (self._rows,)))
        self._attended = tuple(ends) or (self._fresh,)

    def _hand_over(self, layer: int, after: int) -> None:
        down = self._add(OpKind.ROWS_TO_HOST, Unit.D2H, layer, (after,))
        self._rows = self._add(OpKind.HOST_ATTENTION, Unit.CPU, layer, (down,))

    def _add(self, kind: OpKind, unit: Unit, layer: int, after: tuple[int, ...]) -> int:
        self._ops.append(Op(len(self._ops), kind, unit, layer, after, self._batch))
        return len(self._ops) - 1


def _moves(units: tuple[Unit, ...]) -> list[Op]:
    """In order of the plan: a move may reuse blocks that an earlier one vacated, so each waits for the one before."""
    return [
        Op(index, OpKind.MOVE, unit, -1, (index - 1,) if index else (), move=index) for index, unit in enumerate(units)
    ]


def seconds_of(op: Op, work: Work, moves: tuple[Move, ...], costs: CostTable) -> float:
    """What an op costs by a table: the simulator's durations and the paces of the emulation are this one function."""
    return price_of(op)(work, moves, costs)


def price_of(op: Op) -> Price:
    """The same as a function of the rest: which one it is, is found out once for each op of a program."""
    match op.kind:
        case OpKind.FIRST:
            return lambda work, moves, costs: costs.pre_attention_s(costs.gemm_rows(work))
        case OpKind.ATTENTION if op.rows is RowsOf.ALL and not op.packed:
            return lambda work, moves, costs: costs.accel_attention_s(work)
        case OpKind.HOST_ATTENTION:
            return lambda work, moves, costs: costs.host_attention_s(work.host_rows, work.host_kv_tokens)
        case OpKind.BETWEEN:
            return lambda work, moves, costs: costs.linear_s(costs.gemm_rows(work))
        case OpKind.LAST:
            return lambda work, moves, costs: costs.post_attention_s(costs.gemm_rows(work)) + costs.head_s(work.sampled)
        case OpKind.MOVE:
            return lambda work, moves, costs: costs.move_s(moves[op.move])
        case OpKind.ROWS_TO_HOST:
            return lambda work, moves, costs: costs.rows_to_host_s(work.host_rows)
        case OpKind.ROWS_TO_ACCEL:
            return lambda work, moves, costs: costs.rows_to_accel_s(work.host_rows)
        case OpKind.PROMPT_TO_HOST:
            return lambda work, moves, costs: costs.kv_to_host_s(work.host_prefill_tokens)
        case OpKind.PROMPT_TO_ACCEL:
            return lambda work, moves, costs: costs.kv_to_accel_s(work.host_prefill_context)
        case _:
            return lambda work, moves, costs: placed_seconds_of(op, work, placed_costs(costs))


def _prices(program: Program) -> Sequence[Price]:
    if not program.prices:
        program.prices.extend([price_of(op) for op, _ in program.tally])
    return program.prices


def _known(program: Program, plan: StepPlan, costs: CostTable, alike: AlikeOps | None = None) -> list[float]:
    """Seconds of one op of each kind, in the order of the tally. `alike` is told of them all."""
    works = [work_of(batch) for batch in plan.batches]
    costs = costs if program.beside else costs.alone
    prices, moves = _prices(program), plan.moves
    known = [price(works[op.batch], moves, costs) for price, (op, _) in zip(prices, program.tally, strict=True)]
    if alike is not None:
        for (op, count), seconds in zip(program.tally, known, strict=True):
            alike(op, count, count * seconds, works[op.batch])
    return known


def durations(program: Program, plan: StepPlan, costs: CostTable, alike: AlikeOps | None = None) -> list[float]:
    """Seconds of each op, in order."""
    known = _known(program, plan, costs, alike)
    return [known[group] for group in program.group]


def place(
    program: Program, seconds: list[float], begin_s: float, free_s: dict[int, float] | None = None
) -> list[float]:
    """List scheduling: when each op ends if it starts as soon as its unit and its dependencies allow.

    `free_s`: until when units are busy with what earlier steps left behind, by lane; brought up to date.
    """
    free_s = {} if free_s is None else free_s
    if program.serial and max(free_s.values(), default=begin_s) <= begin_s:
        ends_s = list(accumulate(seconds, initial=begin_s))[1:]
        free_s.update(zip([op.lane for op in program.ops], ends_s, strict=True))
        return ends_s
    ends_s = []
    for op, duration_s in zip(program.ops, seconds, strict=True):
        lane = op.lane
        start_s = free_s.get(lane, begin_s)
        if start_s < begin_s:
            start_s = begin_s
        for index in op.after:
            if ends_s[index] > start_s:
                start_s = ends_s[index]
        free_s[lane] = end_s = start_s + duration_s
        ends_s.append(end_s)
    return ends_s


def makespan(
    program: Program,
    plan: StepPlan,
    costs: CostTable,
    begin_s: float = 0.0,
    free_s: dict[int, float] | None = None,
    alike: AlikeOps | None = None,
) -> tuple[float, list[float]]:
    """Seconds of the whole step, busy seconds per unit: as `place` has it, without visiting each layer if serial."""
    known = _known(program, plan, costs, alike)
    busy_s = program.busy(known)
    return _spanned(program, known, busy_s, begin_s, free_s), busy_s


def _spanned(
    program: Program, known: list[float], busy_s: list[float], begin_s: float, free_s: dict[int, float] | None
) -> float:
    """Seconds from the first op to the last."""
    if program.serial:
        return sum(busy_s)
    busy = free_s is not None and max(free_s.values(), default=0.0) > begin_s  # with cohorts that still fly
    if busy or program.devices > 1:
        return max(place(program, [known[group] for group in program.group], begin_s, free_s)) - begin_s
    ends_s = program.ends(known)
    if free_s is not None:
        free_s.update([(unit, begin_s + end_s) for unit, end_s in zip(UNITS, ends_s, strict=True) if end_s])
    return max(ends_s)
