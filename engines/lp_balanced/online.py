"""TwinPilots' engine: who computes which operator is decided by min-max balance, for the batch at hand, and again when
the machine turns out to be slower or faster than believed.

Leading layers are pinned on the accelerator while they fit; the others' weights are in the host's memory, where either
side can use them: computed in place, or moved. So a placement costs nothing to change, and a step with many prompt rows
has one that a step of decodes would not want. The embedding stays on the host, and small rows cross by zero copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from engines.core.cost import PlacedCosts, Work, work_of
from engines.core.memory import Room
from engines.core.pipeline import lower, makespan, seconds_of
from engines.core.placement import LayerPlacement, Part, Placement, PlacementError, Split
from engines.core.placing import dealt, fits
from engines.core.types import Batch, BlockChanges, Mode, PrefillChunk, StepPlan, StepResult
from engines.core.units import Tier, Unit
from engines.lp_balanced.balance import Balance, Form, Piece, balance
from engines.lp_balanced.tracker import Tracker

LESS = (1.0, 0.75, 0.5, 0.25, 0.0)  # of what the balance gives the host
KV_CHOICES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the layers' KV on the host
UNITS = (Unit.GPU, Unit.CPU, Unit.H2D)
Scale = Callable[[Unit], float]


@dataclass(frozen=True, slots=True)
class Load:
    """What a step is expected to hold."""

    rows: int
    prompt_rows: int
    context: int


@dataclass(frozen=True, slots=True)
class Balanced:
    """One solution: the placement, what the planner says of it, and what a step takes by the lowering."""

    placement: Placement
    balance: Balance
    step_s: float


def as_believed(unit: Unit) -> float:
    return 1.0


def choose(room: Room, costs: PlacedCosts, form: Form, load: Load, tokens: int) -> Balanced:
    """Where the KV is, and how many layers are pinned: of a few choices the one whose step is shortest."""
    tokens = min(tokens, room.most_tokens)
    found = [each for share in KV_CHOICES for each in _with_kv(room, costs, form, load, tokens, share)]
    if not found:
        layers = room.sizes.layers
        room.kv_blocks(_unpinned(layers, 0))  # says what is short
        raise PlacementError(
            f"KV for {load.rows} requests of {tokens // load.rows} tokens does not fit beside what has to be on the "
            f"accelerator; lower batch, prompt_tokens or output_tokens, or raise accel_memory or host_memory"
        )
    return min(found, key=lambda each: each.step_s)


def _with_kv(room: Room, costs: PlacedCosts, form: Form, load: Load, tokens: int, share: float) -> Iterator[Balanced]:
    layers = room.sizes.layers
    on_host = round(share * layers)
    for pinned in range(layers, -1, -1):
        skeleton = _unpinned(layers, on_host)
        skeleton = replace(skeleton, layers=_pin(skeleton.layers, pinned))
        if fits(room, skeleton, tokens):
            yield rebalanced(skeleton, costs, form, load)
            return


def _unpinned(layers: int, kv_on_host: int) -> Placement:
    """Every weight on the host; the KV of the last layers too."""
    away = Split(0.0, 1.0)
    kinds = [
        LayerPlacement.of(away, Tier.ACCEL if index < layers - kv_on_host else Tier.HOST) for index in range(layers)
    ]
    return Placement(tuple(kinds), zero_copy=True, embedding=Tier.HOST, replaceable=True)


def _pin(layers: tuple[LayerPlacement, ...], count: int) -> tuple[LayerPlacement, ...]:
    pinned = tuple(LayerPlacement(kv=layer.kv, prompts=layer.prompts) for layer in layers[:count])
    return pinned + layers[count:]


def rebalanced(
    placement: Placement, costs: PlacedCosts, form: Form, load: Load, scale: Scale = as_believed
) -> Balanced:
    """Residents and KV stay; what is on the host is dealt anew.

    The balance adds computing and transfers up, which overlap here, and knows nothing of the chain within a layer: for
    steps that are all arithmetic it leaves the host too much. So less is tried too, and the lowering has the last word.
    """
    pieces = list(_pieces(placement, costs, load, scale))
    resident = frozenset(
        index for index, piece in enumerate(pieces) if placement.layers[piece.layer].split(Part(piece.name)).is_resident
    )
    cpu_s, gpu_s = _attention_s(placement, costs, load)
    found = balance(pieces, form, resident, cpu_s * scale(Unit.CPU), gpu_s * scale(Unit.GPU))
    parts = LESS if form == "lp" else (1.0, 0.0)  # of an operator that may not be split: all of it or nothing
    tried = [dealt(placement, [part * share for share in found.host_share]) for part in parts]
    return min([Balanced(made, found, _step_s(made, costs, load)) for made in tried], key=lambda each: each.step_s)


def _pieces(placement: Placement, costs: PlacedCosts, load: Load, scale: Scale) -> Iterator[Piece]:
    rows = costs.gemm_rows(_work(load))
    times = {}
    for part in Part:
        inputs, outputs = costs.widths[part]
        times[part] = (
            costs.host_matrix_s((part,), 1.0, rows) * scale(Unit.CPU),
            costs.matrix_s((part,), 1.0, rows) * scale(Unit.GPU),
            costs.weights_s((part,), 1.0, Unit.H2D, packed=False) * scale(Unit.H2D),
            inputs * outputs,
        )
    for index in range(len(placement.layers)):
        for part in Part:
            yield Piece(index, part.value, *times[part])


def _attention_s(placement: Placement, costs: PlacedCosts, load: Load) -> tuple[float, float]:
    """On the host and on the accelerator: it follows the KV, that of prompts excepted."""
    work = _work(load)
    prompts = work._replace(decode_rows=0, decode_kv_tokens=0)
    here, away = placement.kv_layers(Tier.ACCEL), placement.kv_layers(Tier.HOST)
    on_host_s = away * costs.host_attention_s(work.decode_rows, work.decode_kv_tokens)
    return on_host_s, here * costs.accel_attention_s(work) + away * costs.accel_attention_s(prompts)


def _work(load: Load) -> Work:
    return work_of(_batch(load))


def _batch(load: Load) -> Batch:
    decodes = load.rows - load.prompt_rows
    prompts = (PrefillChunk(0, 0, 0, load.prompt_rows, False),) if load.prompt_rows else ()
    return Batch(tuple(range(decodes)), (load.context,) * decodes, prompts)


def _step_s(placement: Placement, costs: PlacedCosts, load: Load) -> float:
    plan = StepPlan(0, Mode.PLACED, (_batch(load),), BlockChanges())
    return makespan(lower(plan, placement), plan, costs)[0]


# --- while it serves -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Pilot:
    """What it has learned of the machine, and its solutions by size of step. Both go when the machine drifts."""

    form: Form
    band: float
    tracker: Tracker = field(default_factory=lambda: Tracker(half_life=4.0))
    solved: dict[tuple[int, int, int], Placement] = field(default_factory=dict)
    solves: int = 0  # anew, because of drift

    def placement(self, current: Placement, costs: PlacedCosts, load: Load) -> Placement:
        """For steps of about this size: sizes are rounded up to powers of two, so that few have to be solved."""
        rounded = Load(_power(load.rows), _power(load.prompt_rows), _power(load.context))
        key = (rounded.rows, rounded.prompt_rows, rounded.context)
        if key not in self.solved:
            self.solved[key] = rebalanced(current, costs, self.form, rounded, self.tracker.scale).placement
        return self.solved[key]

    def observe(self, placement: Placement, costs: PlacedCosts, plan: StepPlan, result: StepResult) -> None:
        believed = dict.fromkeys(UNITS, 0.0)
        works = [work_of(batch) for batch in plan.batches]
        for op, count in lower(plan, placement).tally:
            if op.unit in believed:
                believed[op.unit] += count * seconds_of(op, works[op.batch], plan.moves, costs)
        units = result.units
        for unit, took_s in zip(UNITS, (units.gpu_s, units.cpu_s, units.h2d_s), strict=True):
            if took_s > 0.0 and believed[unit] > 0.0:
                self.tracker.observe(unit, took_s / believed[unit])
        if self.tracker.drifted(self.band):
            self.tracker.rebase()
            self.solved.clear()
            self.solves += 1


def _power(count: int) -> int:
    return 0 if count <= 0 else 1 << (count - 1).bit_length()
