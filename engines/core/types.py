"""The vocabulary of the cut: what a scheduler says (`StepPlan`) and hears (`StepResult`). Integers only, no tensors.

Everything here is frozen. Columns instead of an object per request where a step touches every request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from engines.core.placement import Placement
from engines.core.units import Tier as Tier
from engines.core.units import Unit as Unit


class Mode(Enum):
    """How one step overlaps its units. Each mode has one lowering (pipeline.py)."""

    GPU_ONLY = "gpu_only"
    SEQUENTIAL = "sequential"
    ASYMMETRIC = "asymmetric"
    ASYNC_OVERLAP = "async_overlap"
    FULL_OVERLAP = "full_overlap"
    PLACED = "placed"  # weights, or KV by layer, are not all on the accelerator


class PreemptionKind(Enum):
    """What happens to the KV of a request that has to make room."""

    RECOMPUTE = "recompute"
    SWAP = "swap"


@dataclass(frozen=True, slots=True)
class TierCapacity:
    """Paged KV of one tier."""

    blocks: int
    page_tokens: int
    bytes_per_block: int = 0

    @property
    def tokens(self) -> int:
        return self.blocks * self.page_tokens


@dataclass(frozen=True, slots=True)
class Capabilities:
    """All that a scheduler may know of a machine. A real run and a simulated one can be given identical ones."""

    layers: int
    accel: TierCapacity
    host: TierCapacity
    units: frozenset[Unit] = frozenset({Unit.GPU})
    host_threads: int = 1
    max_model_tokens: int = 1 << 30

    def tier(self, tier: Tier) -> TierCapacity:
        return self.accel if tier is Tier.ACCEL else self.host


@dataclass(frozen=True, slots=True)
class Limits:
    """The two budgets of a step."""

    max_batch: int
    max_batch_tokens: int


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """What the core is told of a request. Its token ids stay with the executor; only their number matters here."""

    request_id: int
    prompt_tokens: int
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that can never run here, with the numbers that say why."""

    request_id: int
    reason: str


# --- what the scheduler says -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """`length` prompt tokens of one request, starting at position `start`; the last chunk samples a token."""

    slot: int
    request_id: int
    start: int
    length: int
    samples: bool
    tier: Tier = Tier.ACCEL


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that share one pass over the weights, as columns: decodes on the accelerator, on the host, prefills."""

    decode_slots: tuple[int, ...] = ()
    decode_positions: tuple[int, ...] = ()
    prefills: tuple[PrefillChunk, ...] = ()
    host_slots: tuple[int, ...] = ()
    host_positions: tuple[int, ...] = ()

    @property
    def prefill_tokens(self) -> int:
        return sum([chunk.length for chunk in self.prefills]) if self.prefills else 0

    @property
    def tokens(self) -> int:
        return len(self.decode_slots) + len(self.host_slots) + self.prefill_tokens

    def longer(self, tokens: int) -> "Batch":
        """The same decodes, so many steps later."""
        decodes = tuple([position + tokens for position in self.decode_positions])
        host = tuple([position + tokens for position in self.host_positions])
        return Batch(self.decode_slots, decodes, (), self.host_slots, host)


STARTS = -1  # as a cohort's layer: its new tokens enter this pass at the embedding
AWAITED = -1  # as a patience: the pass waits for the cohort, however long it takes


class CohortPlan(NamedTuple):  # dozens per step: a frozen dataclass takes four times as long to make
    """Host requests that move through the layers together and may outlive the step, parked at a layer with their
    attention of it in flight.

    When the pass gets to that layer it waits up to `patience_us` for the cohort: not at all where it lags behind on
    purpose, a little where it is meant to keep up.
    """

    cohort: int
    slots: tuple[int, ...]
    positions: tuple[int, ...]
    parked_layer: int
    patience_us: int = 0


class Guard(NamedTuple):  # dozens per step, as cohorts
    """A question that only the running step can answer: is this cohort's attention ready at this layer?"""

    cohort: int
    layer: int


@dataclass(frozen=True, slots=True)
class SlotStart:
    """A slot is bound to a request and its block table starts empty."""

    slot: int
    request_id: int
    tier: Tier


@dataclass(frozen=True, slots=True)
class Move:
    """Copy the KV of one request between tiers, before anything in the plan writes."""

    request_id: int
    source: Tier
    source_blocks: tuple[int, ...]
    target: Tier
    target_blocks: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class BlockChanges:
    """What changed in the block tables since the last plan, in this order: ends, starts, growth (columns)."""

    ends: tuple[int, ...] = ()
    starts: tuple[SlotStart, ...] = ()
    grown_slots: tuple[int, ...] = ()
    grown_blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, complete: an executor needs nothing else but the tokens it already holds."""

    step: int
    mode: Mode
    batches: tuple[Batch, ...]
    changes: BlockChanges
    moves: tuple[Move, ...] = ()
    cohorts: tuple[CohortPlan, ...] = ()
    preempted: tuple[int, ...] = ()
    admitted: tuple[int, ...] = ()
    places: Placement | None = None  # in force from this step on; None: as before
    found_tokens: int = 0  # of those admitted again, that they need not compute again


# --- what the scheduler hears ----------------------------------------------------------------------------------------


class GuardAnswer(NamedTuple):
    guard: Guard
    ready: bool


class UnitTimes(NamedTuple):
    """Busy seconds per unit in one step, and how its ops kept their pace."""

    gpu_s: float = 0.0
    cpu_s: float = 0.0
    h2d_s: float = 0.0
    d2h_s: float = 0.0
    disk_s: float = 0.0
    ops: int = 0
    overruns: int = 0


IDLE = UnitTimes()


@dataclass(frozen=True, slots=True)
class StepResult:
    """`tokens`: one per sampling row, in the plan's order (decodes, host decodes, then prefills, batch by batch), then
    one per request of each finished cohort, in the order of `finished_cohorts`."""

    tokens: Sequence[int]
    started_s: float
    ended_s: float
    units: UnitTimes = IDLE
    answers: tuple[GuardAnswer, ...] = ()
    finished_cohorts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepEvents:
    """What a step delivered, as columns: one row per token, then who ended, started or lost its place."""

    request_ids: Sequence[int]
    token_ids: Sequence[int]
    finished: Sequence[int] = ()
    admitted: Sequence[int] = ()
    preempted: Sequence[int] = ()
    on_host: Sequence[int] = ()  # of those with a token, whose KV is there
