"""Layers spread over several accelerators, each with a run of them: a pipeline that batches pass through.

A step of one batch uses one accelerator at a time. Several batches of one step follow each other through the stages,
and what a batch does in the next step may begin as soon as its own tokens are there, so that no stage runs empty
between steps (`Rounds`). Splitting every layer over all accelerators is no matter of lowering: their rates say it
(harness/several_gpus.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from engines.core.errors import UnsupportedPlanError
from engines.core.ops import Op, OpKind, Program
from engines.core.placement import Placement
from engines.core.policy import BatchDecision, Proposal
from engines.core.types import Batch, Mode, StepPlan, Unit


def staged(placement: Placement, stages: int) -> Placement:
    """The same layers in so many runs of equal length.

    Where weights are moved, each run gets its part of what is moved and of what stays: layers are alike, and links
    should be. Where none are, the order stays, since a run of layers on the host is left once.
    """
    layers, count = placement.layers, len(placement.layers)
    if placement.moves_weights:
        layers = tuple([layers[index] for first in range(stages) for index in range(first, count, stages)])
        runs = [len(range(first, count, stages)) for first in range(stages)]
        return replace(placement, layers=layers, stages=tuple(_runs(runs)))
    on_accel = [any(not split.is_on_host for split in layer.splits) for layer in layers]
    total = sum(on_accel)
    before, places = 0, []
    for here in on_accel:
        places.append(min(before * stages // max(1, total), stages - 1))
        before += here
    return replace(placement, stages=tuple(places))


def _runs(lengths: Sequence[int]) -> Iterator[int]:
    for stage, length in enumerate(lengths):
        yield from [stage] * length


def in_turns(proposal: Proposal, stages: int) -> tuple[BatchDecision, ...]:
    """As many batches as there are stages. A request stays in the batch that its number says, so that its next step
    need not wait for another batch's.
    """
    batches = []
    for turn in range(stages):
        decodes = [request for request in proposal.decodes if request.sequence % stages == turn]
        prefills = [prefill for prefill in proposal.prefills if prefill.request.sequence % stages == turn]
        if decodes or prefills:
            batches.append(BatchDecision(decodes, prefills))
    return tuple(batches)


def lower_staged(plan: StepPlan, placement: Placement) -> Program:
    """Of layers that are all on some accelerator."""
    if plan.mode is not Mode.GPU_ONLY or plan.moves or plan.cohorts or any(batch.host_slots for batch in plan.batches):
        raise UnsupportedPlanError(f"{plan.mode.value} is not lowered for a pipeline of accelerators")
    return _staged(placement.stages, tuple([_samples(batch) for batch in plan.batches]))


def _samples(batch: Batch) -> bool:
    return bool(batch.decode_slots) or any(chunk.samples for chunk in batch.prefills)


@lru_cache(maxsize=256)
def _staged(stages: tuple[int, ...], batches: tuple[bool, ...]) -> Program:
    """Batch by batch: the order in which each accelerator sees them."""
    ops: list[Op] = []
    for batch in range(len(batches)):
        _through(ops, batch, stages)
    return Program.of(ops)


def _through(ops: list[Op], batch: int, stages: tuple[int, ...]) -> None:
    """What projects a stage's first query, key and value is left with the stage before: as much work, elsewhere."""
    after: tuple[int, ...] = ()

    def add(kind: OpKind, unit: Unit, layer: int) -> tuple[int, ...]:
        ops.append(Op(len(ops), kind, unit, layer, after, batch, device=stages[layer]))
        return (len(ops) - 1,)

    after = add(OpKind.FIRST, Unit.GPU, 0)
    for layer, stage in enumerate(stages):
        after = add(OpKind.ATTENTION, Unit.GPU, layer)
        last = layer == len(stages) - 1
        after = add(OpKind.LAST if last else OpKind.BETWEEN, Unit.GPU, layer)
        if not last and stages[layer + 1] != stage:
            after = add(OpKind.NEXT_STAGE, Unit.D2H, layer)


@dataclass(slots=True)
class Rounds:
    """When the batches of one step after another end, where each goes round on its own.

    All of a step is decided at once and its tokens are handed out at its end; what a batch computes may have begun
    before that, once its own last tokens were there. So tokens are a little late, and whoever is new may be a little
    early, by less than a step.
    """

    _free_s: dict[int, float] = field(default_factory=dict)  # by lane
    _ready_s: list[float] = field(default_factory=list)  # by batch, when its last tokens were there

    def place(self, program: Program, seconds: Sequence[float], begin_s: float, overhead_s: float) -> list[float]:
        """As `pipeline.place`. `begin_s`: an overhead after the step before has ended, if nobody had to wait."""
        goes_on = bool(self._ready_s) and begin_s <= max(self._ready_s) + overhead_s * (1 + 1e-9)
        earliest_s = [ready_s + overhead_s for ready_s in self._ready_s] if goes_on else []
        ends_s: list[float] = []
        ready_s: list[float] = []
        for op, duration_s in zip(program.ops, seconds, strict=True):
            start_s = earliest_s[op.batch] if op.batch < len(earliest_s) else begin_s
            start_s = max([start_s, self._free_s.get(op.lane, start_s), *[ends_s[index] for index in op.after]])
            self._free_s[op.lane] = end_s = start_s + duration_s
            ends_s.append(end_s)
            if op.batch == len(ready_s):
                ready_s.append(end_s)
            ready_s[op.batch] = end_s
        self._ready_s = ready_s
        return ends_s
