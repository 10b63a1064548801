"""The lowering of a step whose weights, or whose KV by layer, are not all on the accelerator.

One or more batches go through every layer in lockstep: what a layer's weights cost to bring is paid once for all of
them. Moved weights have a buffer, or two, each: a layer's weights load as soon as the one before last has been used.
Weights cross the link in order and are never overtaken; small rows queue behind them, unless they go by zero copy,
which occupies the accelerator for as long instead.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from engines.core.errors import UnsupportedPlanError
from engines.core.ops import Op, OpKind, Program, RowsOf
from engines.core.placement import LayerPlacement, Part, Placement
from engines.core.types import Batch, StepPlan, Tier, Unit

AFTER_ATTENTION = (Part.OUTPUT, Part.UP, Part.DOWN)
OF_WEIGHTS = (OpKind.READ_WEIGHTS, OpKind.WEIGHTS_TO_ACCEL, OpKind.MATRIX)
OF_KV = (OpKind.ATTENTION, OpKind.IN_PLACE_ATTENTION, OpKind.KV_TO_HOST, OpKind.KV_TO_ACCEL)
OF_ACCELERATOR = (Unit.GPU, Unit.H2D, Unit.D2H)  # of several accelerators each has its own
FROM_HIDDEN = (Part.QKV, Part.UP)  # what they read is the hidden state, normed; the others add to it


_Buffered = tuple[int, Part]  # an accelerator, and which of its buffers


@dataclass(frozen=True, slots=True)
class _Shape:
    """What decides which ops a batch needs."""

    decodes: bool
    prompts: bool
    reloads: bool  # later chunks of prompts, which read the KV of earlier ones
    sampled: bool


def lower_placed(plan: StepPlan, placement: Placement) -> Program:
    if plan.cohorts or plan.moves or not plan.batches or any(_has_host_rows(batch) for batch in plan.batches):
        raise UnsupportedPlanError("placed weights are lowered without cohorts, moves and requests on the host")
    return _lowered(placement, tuple([_shape(batch) for batch in plan.batches]))


def _has_host_rows(batch: Batch) -> bool:
    return bool(batch.host_slots) or any(chunk.tier is Tier.HOST for chunk in batch.prefills)


def _shape(batch: Batch) -> _Shape:
    return _Shape(
        decodes=bool(batch.decode_slots),
        prompts=bool(batch.prefills),
        reloads=any(chunk.start for chunk in batch.prefills),
        sampled=bool(batch.decode_slots) or any(chunk.samples for chunk in batch.prefills),
    )


@lru_cache(maxsize=256)
def _lowered(placement: Placement, shapes: tuple[_Shape, ...]) -> Program:
    writer = _Writer(placement)
    lanes = [_Lane(writer, index, shape, placement) for index, shape in enumerate(shapes)]
    # A load is issued as soon as its buffer is free, however many resident layers come in between.
    moved = [index for index, layer in enumerate(placement.layers) if any(split.moved for split in layer.splits)]
    freed: dict[int, int] = {}
    for device in range(placement.devices):
        moving = [index for index in moved if placement.device_of(index) == device]
        for index in moving[: placement.buffers]:
            writer.load(index)
        freed |= zip(moving, moving[placement.buffers :], strict=False)
    for index, layer in enumerate(placement.layers):
        for lane in lanes:
            lane.through(index, layer)
        if index in freed:
            writer.load(freed[index])
    for lane in lanes:
        lane.head()
    return Program.of(writer.ops)


class _Writer:
    """The list of ops, and the buffers that moved weights pass through."""

    def __init__(self, placement: Placement) -> None:
        self.ops: list[Op] = []
        self.loads: dict[tuple[int, Part], int] = {}  # the op that brings a layer's weights
        self._placement = placement
        self._packed = OF_WEIGHTS * placement.compressed_weights + OF_KV * placement.compressed_kv
        # Each accelerator has buffers of its own.
        self._used: dict[_Buffered, list[list[int]]] = defaultdict(list)  # by load, the ops that used it
        self._sent: dict[_Buffered, list[int]] = defaultdict(list)  # loads that emptied a buffer on the host

    def add(
        self,
        kind: OpKind,
        unit: Unit,
        layer: int,
        after: tuple[int, ...],
        batch: int = 0,
        parts: tuple[Part, ...] = (),
        share: float = 1.0,
        rows: RowsOf = RowsOf.ALL,
    ) -> int:
        index = len(self.ops)
        if not self._placement.overlapped and index:
            after = (*after, index - 1)
        waits = tuple(sorted(set(after)))
        packed = kind in self._packed
        device = self._placement.device_of(layer) if unit in OF_ACCELERATOR else 0
        self.ops.append(Op(index, kind, unit, layer, waits, batch, -1, None, parts, share, rows, packed, device))
        return index

    def load(self, layer: int) -> None:
        """What moves of a layer's weights, in order of use."""
        for part in Part:
            split = self._placement.layers[layer].split(part)
            if not split.moved:
                continue
            buffers, device = self._placement.buffers, self._placement.device_of(layer)
            used, sent = self._used[device, part], self._sent[device, part]
            waits = tuple(used[-buffers]) if len(used) >= buffers else ()
            if split.from_disk:
                freed = (sent[-buffers],) if len(sent) >= buffers else ()
                read = self.add(OpKind.READ_WEIGHTS, Unit.DISK, layer, freed, parts=(part,), share=split.from_disk)
                waits = (*waits, read)
            load = self.add(OpKind.WEIGHTS_TO_ACCEL, Unit.H2D, layer, waits, parts=(part,), share=split.moved)
            if split.from_disk:
                sent.append(load)
            used.append([])
            self.loads[layer, part] = load

    def uses(self, part: Part, op: int) -> None:
        """The latest load of these weights is read by this op."""
        layer = self.ops[op].layer
        device = self._placement.device_of(layer)
        self._used[device, part][self._index_of_load(part, layer, device)].append(op)

    def _index_of_load(self, part: Part, layer: int, device: int) -> int:
        place = self._placement.device_of
        return sum(1 for at, which in self.loads if which is part and at <= layer and place(at) == device) - 1


class _Lane:
    """One batch on its way. Its rows are in two places at most: the hidden state, and what the last op made of it."""

    def __init__(self, writer: _Writer, batch: int, shape: _Shape, placement: Placement) -> None:
        self._writer = writer
        self._batch = batch
        self._shape = shape
        self._placement = placement
        self._after: tuple[int, ...] = ()
        self._hidden_on_host = placement.embedding is Tier.HOST
        self._made_on_host = False
        self._down, self._up = (Unit.GPU, Unit.GPU) if placement.zero_copy else (Unit.D2H, Unit.H2D)

    def through(self, index: int, layer: LayerPlacement) -> None:
        device_of = self._placement.device_of
        if index and not self._hidden_on_host and device_of(index) != device_of(index - 1):
            self._step(OpKind.NEXT_STAGE, Unit.D2H, index - 1)
        self._matrices(index, (Part.QKV,), layer)
        self._attend(index, layer)
        for _, alike in groupby(AFTER_ATTENTION, key=lambda part: _fused(part, layer)):
            self._matrices(index, tuple(alike), layer)

    def head(self) -> None:
        if not self._shape.sampled:
            return
        if self._hidden_on_host:
            self._step(OpKind.HIDDEN_TO_ACCEL, self._up, len(self._placement.layers) - 1)
        self._step(OpKind.HEAD, Unit.GPU, len(self._placement.layers) - 1)

    # --- matrices ----------------------------------------------------------------------------------------------------

    def _matrices(self, index: int, parts: tuple[Part, ...], layer: LayerPlacement) -> None:
        split, first = layer.split(parts[0]), parts[0]
        self._bring(index, first, to_host=split.is_on_host)
        if split.is_on_host:
            self._step(OpKind.HOST_MATRIX, Unit.CPU, index, parts=parts)
        else:
            self._on_accelerator(index, parts, split.host, split.moved > 0.0)
        self._made_on_host = split.is_on_host
        if parts[-1] not in FROM_HIDDEN:
            self._hidden_on_host = split.is_on_host

    def _on_accelerator(self, index: int, parts: tuple[Part, ...], on_host: float, moved: bool) -> None:
        """The host computes its columns meanwhile."""
        before, ends = self._after, []
        if on_host:
            self._step(OpKind.INPUT_TO_HOST, self._down, index, parts=parts, share=on_host)
            self._step(OpKind.HOST_MATRIX, Unit.CPU, index, parts=parts, share=on_host)
            ends = list(self._after)
        waits = (*before, self._writer.loads[index, parts[0]]) if moved else before
        own = self._add(OpKind.MATRIX, Unit.GPU, index, waits, parts=parts, share=1.0 - on_host)
        if moved:
            self._writer.uses(parts[0], own)
        if on_host:
            ends = [self._add(OpKind.OUTPUT_TO_ACCEL, self._up, index, tuple(ends), parts=parts, share=on_host)]
        self._after = (own, *ends)

    def _bring(self, index: int, part: Part, *, to_host: bool) -> None:
        """What the matrix reads and, if it adds to the hidden state, that."""
        if part not in FROM_HIDDEN and self._made_on_host is not to_host:
            kind = OpKind.INPUT_TO_HOST if to_host else OpKind.INPUT_TO_ACCEL
            self._step(kind, self._down if to_host else self._up, index, parts=(part,))
        if self._hidden_on_host is not to_host:
            kind = OpKind.HIDDEN_TO_HOST if to_host else OpKind.HIDDEN_TO_ACCEL
            self._step(kind, self._down if to_host else self._up, index)
            self._hidden_on_host = to_host

    # --- attention ---------------------------------------------------------------------------------------------------

    def _attend(self, index: int, layer: LayerPlacement) -> None:
        shape = self._shape
        if layer.kv is Tier.ACCEL:
            self._rows_to(index, on_host=False)
            self._step(OpKind.ATTENTION, Unit.GPU, index)
        elif layer.prompts is Unit.CPU or not shape.prompts:
            rows = RowsOf.ALL if shape.prompts else RowsOf.DECODES
            self._rows_to(index, on_host=True)
            self._in_place(index, layer, rows)
            self._made_on_host = True
        else:
            self._apart(index, layer)

    def _rows_to(self, index: int, *, on_host: bool) -> None:
        if self._made_on_host is not on_host:
            kind = OpKind.QKV_TO_HOST if on_host else OpKind.OUTPUT_TO_ACCEL
            parts = () if on_host else (Part.QKV,)
            self._step(kind, self._down if on_host else self._up, index, parts=parts)
            self._made_on_host = on_host

    def _apart(self, index: int, layer: LayerPlacement) -> None:
        """Prompts attend on the accelerator and their KV leaves; decodes attend on the host, meanwhile."""
        self._rows_to(index, on_host=False)
        before = self._after
        if self._shape.decodes:
            self._step(OpKind.QKV_TO_HOST, self._down, index, rows=RowsOf.DECODES)
            self._in_place(index, layer, RowsOf.DECODES)
        decoded, self._after = self._after, before
        if self._shape.reloads:
            if layer.kv is Tier.DISK:
                self._step(OpKind.READ_KV, Unit.DISK, index, rows=RowsOf.PROMPTS)
            self._step(OpKind.KV_TO_ACCEL, Unit.H2D, index)
        self._step(OpKind.ATTENTION, Unit.GPU, index, rows=RowsOf.PROMPTS)
        ends = [*self._after]
        store = self._add(OpKind.KV_TO_HOST, Unit.D2H, index, before)
        if layer.kv is Tier.DISK:
            store = self._add(OpKind.WRITE_KV, Unit.DISK, index, (store,), rows=RowsOf.PROMPTS)
        ends.append(store)
        if self._shape.decodes:
            ends.append(
                self._add(OpKind.INPUT_TO_ACCEL, self._up, index, decoded, parts=(Part.OUTPUT,), rows=RowsOf.DECODES)
            )
        self._after = tuple(ends)

    def _in_place(self, index: int, layer: LayerPlacement, rows: RowsOf) -> None:
        if layer.kv is not Tier.DISK:
            self._step(OpKind.IN_PLACE_ATTENTION, Unit.CPU, index, rows=rows)
            return
        read = self._add(OpKind.READ_KV, Unit.DISK, index, (), rows=rows)  # read ahead: it waits for nobody
        self._after = (*self._after, read)
        self._step(OpKind.IN_PLACE_ATTENTION, Unit.CPU, index, rows=rows)
        self._add(OpKind.WRITE_KV, Unit.DISK, index, self._after, rows=rows)

    # --- one op ------------------------------------------------------------------------------------------------------

    def _step(
        self,
        kind: OpKind,
        unit: Unit,
        index: int,
        parts: tuple[Part, ...] = (),
        share: float = 1.0,
        rows: RowsOf = RowsOf.ALL,
    ) -> None:
        self._after = (self._add(kind, unit, index, self._after, parts, share, rows),)

    def _add(
        self,
        kind: OpKind,
        unit: Unit,
        index: int,
        after: tuple[int, ...],
        parts: tuple[Part, ...] = (),
        share: float = 1.0,
        rows: RowsOf = RowsOf.ALL,
    ) -> int:
        return self._writer.add(kind, unit, index, after, self._batch, parts, share, rows)


def _fused(part: Part, layer: LayerPlacement) -> object:
    """Neighbours with the same key are one op: all on the accelerator for good, or all on the host."""
    split = layer.split(part)
    return split if split.is_resident or split.is_on_host else part
