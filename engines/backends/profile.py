"""Runs made-up steps on the real executor and says what their ops took. For `harness profile`; nobody is served here.

The steps go through the code that serves: the same ops in the same order over all layers, so that weights and pages are
as cold as in serving. Which steps, how often, and what becomes of the numbers is the harness's.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engines.apex import attention as native
from engines.backends.buffers import PagedKv
from engines.backends.op_times import OpSink, OpTally
from engines.backends.pacing import Awaited, NativePace, Pace, PassPace
from engines.backends.torch_backend import TorchExecutor
from engines.core.clock import MonotonicClock, stopwatch
from engines.core.errors import UnsupportedPlanError
from engines.core.ops import Op, OpKind, Program
from engines.core.placement import Placement
from engines.core.types import (
    Batch,
    BlockChanges,
    Capabilities,
    Mode,
    Move,
    PrefillChunk,
    SlotStart,
    StepPlan,
    Tier,
    TierCapacity,
    Unit,
    UnitTimes,
)
from engines.model.decoder import Decoder

PAGES_IN_A_ROW = 8  # a pool in use hands out short runs of neighbours, neither one long stretch nor single pages
JobArguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float]  # of submit_decode_attention
OpSeconds = dict[tuple[OpKind, Unit], float]


class StepRig:
    """`slots` requests whose tokens and pages are there already, for any mixture of decodes and chunks."""

    def __init__(self, model: Decoder, capabilities: Capabilities, slots: int, sequence_tokens: int) -> None:
        self._config = model.config
        self._took: dict[tuple[OpKind, Unit], list[float]] = {}
        self.clock = MonotonicClock()
        device = torch.device(model.device.type)
        pace: Pace = (EventPace if device.type == "cuda" else NativePace)(self.clock, self._note)
        placement = Placement.all_on_accelerator(capabilities.layers)
        self.executor = TorchExecutor(model, capabilities, placement, pace, slots, device, model.dtype)
        self._stores = self.executor._stores
        for store in self._stores.values():
            _fill(store)
        draw = np.random.default_rng(0)
        for slot in range(slots):
            self.executor.register(slot, draw.integers(0, model.config.vocab_size, sequence_tokens).tolist())
        self._pages = {tier: _Pages(capabilities.tier(tier), draw) for tier in (Tier.ACCEL, Tier.HOST)}
        self._bound: tuple[int, ...] = ()
        self._changes = BlockChanges()  # of the next step
        self._step = 0
        self.step_seconds = 0.0  # of the last one, whole

    def lay_out(self, rows: int, context: int, chunks: Sequence[tuple[int, int]], samples: bool) -> Batch:
        """Bind slots to pages for `rows` decodes with `context` tokens each, and chunks of (length, start)."""
        tokens = [context] * rows + [start + length for length, start in chunks]
        pages = [self._pages[Tier.ACCEL].take(count) for count in tokens]
        self._changes = BlockChanges(
            ends=self._bound,
            starts=tuple(SlotStart(slot, slot, Tier.ACCEL) for slot in range(len(tokens))),
            grown_slots=tuple(slot for slot, taken in enumerate(pages) for _ in taken),
            grown_blocks=tuple(page for taken in pages for page in taken),
        )
        self._bound = tuple(range(len(tokens)))
        prefills = tuple(
            PrefillChunk(rows + index, rows + index, start, length, samples)
            for index, (length, start) in enumerate(chunks)
        )
        return Batch(tuple(range(rows)), (context - 1,) * rows, prefills)

    def run(self, batch: Batch, moves: tuple[Move, ...] = ()) -> OpSeconds:
        """One step: mean seconds of an op of each kind."""
        self._took.clear()
        self._step += 1
        changes, self._changes = self._changes, BlockChanges()
        begin_s = stopwatch()
        self.executor.run(StepPlan(self._step, Mode.GPU_ONLY, (batch,), changes, moves))
        self.step_seconds = stopwatch() - begin_s
        return {key: sum(seconds) / len(seconds) for key, seconds in self._took.items()}

    def moves(self, tokens: int) -> tuple[Move, Move]:
        """One request out to the host, and another one back."""
        accel, host = self._pages[Tier.ACCEL], self._pages[Tier.HOST]
        out = Move(0, Tier.ACCEL, accel.take(tokens), Tier.HOST, host.take(tokens), tokens)
        back = Move(1, Tier.HOST, host.take(tokens), Tier.ACCEL, accel.take(tokens), tokens)
        return out, back

    def host_jobs(self, rows: int, context: int) -> "HostJobs":
        """Attention of `rows` requests over the host's pages, layer after layer."""
        taken = [self._pages[Tier.HOST].take(context) for _ in range(rows)]
        return HostJobs(self._stores[Tier.HOST], self._config.query_heads, taken, context)

    def close(self) -> None:
        self.executor.close()

    def _note(self, step: int, op: Op, start_s: float, end_s: float) -> None:
        self._took.setdefault((op.kind, op.unit), []).append(end_s - start_s)


class HostJobs:
    """Jobs of one shape for the host's threads: one layer each, so that pages are cold."""

    MOST = 14  # in flight: the pool has room for 16, and one goes ahead of them

    def __init__(self, store: PagedKv, heads: int, pages: Sequence[Sequence[int]], context: int) -> None:
        self._store = store
        self._table = torch.tensor(pages, dtype=torch.int32)
        self._contexts = torch.full((len(pages),), context, dtype=torch.int32)
        self._query = torch.randn(len(pages), heads, store.keys.shape[-1]).to(store.keys.dtype)
        self._out = torch.empty_like(self._query)
        self._layer = 0

    @property
    def arguments(self) -> "JobArguments":
        """Of the next job."""
        keys, values = self._store.keys[self._layer], self._store.values[self._layer]
        return self._query, keys, values, self._table, self._contexts, self._out, keys.shape[-1] ** -0.5

    def submit(self, pool: native.Pool, count: int) -> list[int]:
        """Tickets; the layers go round."""
        return [self._submit_one(pool) for _ in range(count)]

    def _submit_one(self, pool: native.Pool) -> int:
        ticket = pool.submit_decode_attention(*self.arguments)
        self._layer = (self._layer + 1) % len(self._store.keys)
        return ticket


def job_seconds(pool: native.Pool, tickets: Sequence[int]) -> float:
    """Of one of several jobs that ran one after the other, when they are done: from the first begin to the last end.

    With several threads a small job may be done before the one before it, whose last piece another thread still has.
    """
    for ticket in tickets:
        pool.wait(ticket)
    spans = [pool.span(ticket) for ticket in tickets]
    return (max(ended_s for _, ended_s in spans) - min(began_s for began_s, _ in spans)) / len(spans)


class _Pages:
    """Pages of a pool in the order in which one in use hands them out, round and round.

    A step may ask for more than there are: pages then belong to several requests, which no timing notices as long as a
    layer's pages together exceed the caches.
    """

    def __init__(self, capacity: TierCapacity, draw: np.random.Generator) -> None:
        runs = [*range(0, capacity.blocks, PAGES_IN_A_ROW)]
        draw.shuffle(runs)
        ends = [(first, min(first + PAGES_IN_A_ROW, capacity.blocks)) for first in runs]
        self._order = [page for first, end in ends for page in range(first, end)]
        self._page_tokens = capacity.page_tokens
        self._next = 0

    def take(self, tokens: int) -> tuple[int, ...]:
        count = -(-tokens // self._page_tokens)
        first, self._next = self._next, (self._next + count) % len(self._order)
        return tuple([self._order[(first + index) % len(self._order)] for index in range(count)])


def _fill(store: PagedKv) -> None:
    """Memory that nobody wrote is one page of zeros, and always in the cache."""
    for pages in (store.keys, store.values):
        pages.copy_(torch.randn(pages.shape[2:], device=pages.device))


class EventPace:
    """Op times on a CUDA stream without waiting for each op: an op lasts from the end of the one before to its own."""

    def __init__(self, clock: MonotonicClock, sink: OpSink) -> None:
        self._clock = clock
        self._sink = sink

    def step(self, plan: StepPlan, program: Program) -> "_EventStep":
        return _EventStep(self._clock, OpTally(plan.step, self._sink))

    def flight(self, plan: StepPlan) -> PassPace:
        raise UnsupportedPlanError("a profile has no cohorts")


class _EventStep:
    def __init__(self, clock: MonotonicClock, tally: OpTally) -> None:
        self._clock = clock
        self._tally = tally
        self._ops: list[Op] = []
        self.started_s = clock.now()
        self._events = [_recorded()]

    def before(self, op: Op) -> None:
        """The stream keeps the order."""

    def after(self, op: Op) -> None:
        self._ops.append(op)
        self._events.append(_recorded())

    def submitted(self, op: Op) -> None:
        raise UnsupportedPlanError("a profile measures the host's attention apart from steps")

    def returned(self, op: Op, job: Awaited) -> None:
        """Nothing was submitted."""

    def finish(self) -> tuple[float, UnitTimes]:
        torch.cuda.synchronize()
        end_s = self.started_s
        for op, (begun, ended) in zip(self._ops, pairwise(self._events), strict=True):
            start_s, end_s = end_s, end_s + begun.elapsed_time(ended) / 1e3
            self._tally.add(op, start_s, end_s)
        return self._clock.now(), self._tally.times()


def _recorded() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
