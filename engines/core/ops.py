"""The words of a lowering: kinds of op, one op, and the program of a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from engines.core.cost import CostTable, Work
from engines.core.placement import Part
from engines.core.time_line import TimeLine
from engines.core.types import Guard, Move, Unit


class OpKind(Enum):
    MOVE = "move"  # one request's KV between tiers
    FIRST = "first"  # embedding, pre-attention of layer 0
    ATTENTION = "attention"
    ROWS_TO_HOST = "rows_to_host"  # query, key and value of the rows whose KV is there
    HOST_ATTENTION = "host_attention"
    ROWS_TO_ACCEL = "rows_to_accel"  # what it made of them
    PROMPT_TO_HOST = "prompt_to_host"  # KV of a layer that host-bound prompt rows made, from its one-layer stage
    PROMPT_TO_ACCEL = "prompt_to_accel"  # KV of their earlier chunks, back into the stage
    BETWEEN = "between"  # post-attention of this layer, pre-attention of the next
    LAST = "last"  # post-attention of the last layer, head, sampling
    # Where weights are placed (placed.py), matrix by matrix:
    READ_WEIGHTS = "read_weights"  # from disk into the host's memory
    WEIGHTS_TO_ACCEL = "weights_to_accel"
    MATRIX = "matrix"
    HOST_MATRIX = "host_matrix"
    HIDDEN_TO_HOST = "hidden_to_host"
    HIDDEN_TO_ACCEL = "hidden_to_accel"
    INPUT_TO_HOST = "input_to_host"  # what a matrix reads
    INPUT_TO_ACCEL = "input_to_accel"
    OUTPUT_TO_ACCEL = "output_to_accel"  # what the host made of its columns
    QKV_TO_HOST = "qkv_to_host"
    IN_PLACE_ATTENTION = "in_place_attention"  # on the host, by KV of the layer that is there
    KV_TO_HOST = "kv_to_host"  # of prompt rows, whose layer keeps its KV there
    KV_TO_ACCEL = "kv_to_accel"  # of their earlier chunks
    READ_KV = "read_kv"
    WRITE_KV = "write_kv"
    HEAD = "head"
    # Where layers are spread over several accelerators (stages.py):
    NEXT_STAGE = "next_stage"  # hidden state, from one accelerator to the next


class RowsOf(Enum):
    """Which rows of its batch an op works on."""

    ALL = "all"
    DECODES = "decodes"
    PROMPTS = "prompts"


@dataclass(frozen=True, slots=True)
class Op:
    """`index` is its place in the list, `after` the indices it waits for. `batch` and `move` point into the plan.

    `parts` and `share`: of which matrices, and how much of their columns. `device`: of several accelerators, whose
    unit it is.
    """

    index: int
    kind: OpKind
    unit: Unit
    layer: int
    after: tuple[int, ...]
    batch: int = 0
    move: int = -1
    guard: Guard | None = None
    parts: tuple[Part, ...] = ()
    share: float = 1.0
    rows: RowsOf = RowsOf.ALL
    packed: bool = False  # the bytes are 4-bit codes
    device: int = 0

    @property
    def alike(self) -> tuple[object, ...]:
        """Ops with the same key cost the same."""
        return self.kind, self.unit, self.batch, self.move, self.parts, self.share, self.rows, self.packed

    @property
    def lane(self) -> int:
        """The unit itself; each further accelerator has units of its own."""
        return self.unit + len(Unit) * self.device


Price = Callable[[Work, tuple[Move, ...], CostTable], float]
AlikeOps = Callable[[Op, int, float, Work], None]  # one of them, how many, seconds of all, what each worked on
AlikeSteps = Callable[[Op, int, Sequence[float], Sequence[Work]], None]  # the same of each step of a stretch


@dataclass(frozen=True, slots=True)
class Program:
    """The ops of one shape of plan. `tally` counts equal ops: their cost is asked once per kind, not per layer."""

    ops: tuple[Op, ...]
    tally: tuple[tuple[Op, int], ...]  # one op of each kind of cost and how many there are
    group: tuple[int, ...]  # of each op, the place of its like in the tally
    serial: bool  # every op waits for the one before it, so that nothing overlaps
    devices: int  # accelerators that take part
    ends: TimeLine = field(repr=False, compare=False)  # when each unit is done, by the seconds of each kind
    beside: bool = False  # host and accelerator work side by side, and may be in each other's way
    prices: list[Price] = field(default_factory=list, repr=False, compare=False)  # of the tally; when first asked

    @staticmethod
    def of(ops: Sequence[Op]) -> "Program":
        places: dict[tuple[object, ...], int] = {}
        group = tuple([places.setdefault(op.alike, len(places)) for op in ops])
        counts = [0] * len(places)
        firsts: list[Op] = []
        for op, place in zip(ops, group, strict=True):
            if place == len(firsts):
                firsts.append(op)
            counts[place] += 1
        serial = all(op.index == 0 or op.index - 1 in op.after for op in ops)
        ends = TimeLine([op.unit for op in ops], [op.after for op in ops], group)
        devices = max([op.device for op in ops], default=0) + 1
        beside = not serial and any(op.unit is Unit.CPU for op in ops)
        return Program(tuple(ops), tuple(zip(firsts, counts, strict=True)), group, serial, devices, ends, beside)

    def busy(self, known: Sequence[float]) -> list[float]:
        """Seconds of each unit, in the order of `Unit`. `known`: of one op of each kind, in the tally's order."""
        busy_s = [0.0] * len(Unit)
        for (op, count), seconds in zip(self.tally, known, strict=True):
            busy_s[op.unit] += count * seconds
        return busy_s
