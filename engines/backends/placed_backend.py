"""Runs plans whose weights are placed, with real tensors. One class for `cpu` and `cuda`, as in torch_backend.py.

The launching thread is the accelerator, and carries small rows over the link. Beside it work a thread for the host's
matrices and attention, one for the link and one for the disk (workers.py): weights load while others are used.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from engines.apex.attention import Pool
from engines.backends.attention_ops import NativeOps, PagedOps, TorchOps
from engines.backends.buffers import BlockTables, KvShape
from engines.backends.conversations import GREEDY, Conversations
from engines.backends.disk_store import DiskStore
from engines.backends.layered_kv import LayeredKv
from engines.backends.pacing import Pace, StepPace
from engines.backends.placed_pass import CPU, PlacedPass
from engines.backends.placed_weights import PlacedWeights
from engines.backends.rows import build_rows
from engines.backends.workers import Job
from engines.core.ops import Op, OpKind, Program
from engines.core.pipeline import lower
from engines.core.placement import Placement
from engines.core.types import Batch, Capabilities, StepPlan, StepResult
from engines.core.units import Tier, Unit
from engines.model.decoder import Decoder
from engines.model.sampler import Sampling

MOVING = (OpKind.READ_WEIGHTS, OpKind.WEIGHTS_TO_ACCEL)


class Lane(Protocol):
    """A thread, or a stream, that takes jobs in order."""

    def submit(self, work: Callable[[], None], after: Sequence[Job] = ()) -> Job: ...

    def close(self) -> None: ...


class PlacedExecutor:
    """`models`: the model as the accelerator and as the host see it, without its matrices: those are `weights`.

    `lanes`: of the units that work beside the launching thread.
    """

    def __init__(
        self,
        models: tuple[Decoder, Decoder],
        weights: PlacedWeights,
        capabilities: Capabilities,
        placement: Placement,
        pace: Pace,
        slots: int,
        lanes: Mapping[Unit, Lane],
        disk: DiskStore | None = None,
        sampling: Sampling = GREEDY,
        pool: Pool | None = None,
    ) -> None:
        model = models[0]
        config = model.config
        self._models = models
        self._weights = weights
        self._capabilities = capabilities
        self._placement = placement
        self._pace = pace
        self._lanes = lanes
        self._disk = disk
        self._pool = pool
        shape = KvShape(config.layers, config.kv_heads, config.head_dim, model.dtype)
        self._kv = LayeredKv(shape, capabilities.accel, placement, model.device, disk)
        self._ops: PagedOps = NativeOps() if model.device.type == "cpu" else TorchOps()
        longest = min(capabilities.accel.tokens, capabilities.max_model_tokens)
        self._tables = BlockTables(slots, -(-longest // self._kv.page_tokens))
        self._talk = Conversations(sampling)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def nbytes(self) -> dict[Tier, int]:
        """What is held on each tier for as long as the executor lives: weights, buffers, KV."""
        weights = self._weights.nbytes
        return {tier: weights[tier] + self._kv.nbytes[tier] for tier in Tier}

    def register(self, request_id: int, prompt_token_ids: Sequence[int]) -> None:
        self._talk.register(request_id, prompt_token_ids)

    def forget(self, request_id: int) -> None:
        self._talk.forget(request_id)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        if plan.places is not None:
            self._weights.replace(plan.places)  # the same bytes, used otherwise
            self._placement = plan.places
        program = lower(plan, self._placement)
        self._tables.apply(plan.changes)
        passes = [self._begin(batch) for batch in plan.batches]
        pace = self._pace.step(plan, program)
        run = _Run(program, passes, self._weights, self._lanes, pace)
        run.all()
        ended_s, units = pace.finish()
        tokens = [token for each in passes for token in each.sampled]
        return StepResult(tokens, pace.started_s, ended_s, units)

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.close()
        if self._pool is not None:
            self._pool.close()
        if self._disk is not None:
            self._disk.close()
        self._talk.clear()

    def _begin(self, batch: Batch) -> PlacedPass:
        pages = dict.fromkeys((Tier.ACCEL, Tier.HOST), self._kv.page_tokens)
        device = self._models[0].device
        rows = build_rows(batch, self._tables, self._talk.sequences, pages, device)
        host_rows = rows
        if device.type != "cpu":
            host_rows = build_rows(batch, self._tables, self._talk.sequences, pages, CPU)
        return PlacedPass(
            self._models, self._weights, self._kv, self._ops, (rows, host_rows), self._talk.sample, self._pool
        )


class _Run:
    """One program: what has a lane of its own is handed out, the rest is done here and waits for what it needs."""

    def __init__(
        self,
        program: Program,
        passes: Sequence[PlacedPass],
        weights: PlacedWeights,
        lanes: Mapping[Unit, Lane],
        pace: StepPace,
    ) -> None:
        self._ops = program.ops
        self._passes = passes
        self._weights = weights
        self._lanes = lanes
        self._pace = pace
        self._jobs: dict[int, Job] = {}
        self._awaited: set[int] = set()

    def all(self) -> None:
        for op in self._ops:
            if op.unit in self._lanes and (op.kind in MOVING or op.unit is not Unit.H2D):
                self._hand_out(op)
            else:
                self._do(op)
        for index in self._jobs:
            self._await(index)

    def _hand_out(self, op: Op) -> None:
        self._pace.before(op)
        after = [self._jobs[index] for index in op.after if index in self._jobs]
        self._jobs[op.index] = self._lanes[op.unit].submit(lambda: self._work(op), after)
        self._pace.submitted(op)

    def _do(self, op: Op) -> None:
        for index in op.after:
            if index in self._jobs:
                self._await(index)
        self._pace.before(op)
        self._work(op)
        self._pace.after(op)

    def _await(self, index: int) -> None:
        if index not in self._awaited:
            self._awaited.add(index)
            self._pace.returned(self._ops[index], self._jobs[index])

    def _work(self, op: Op) -> None:
        match op.kind:
            case OpKind.READ_WEIGHTS:
                self._weights.read(op.layer, op.parts[0])
            case OpKind.WEIGHTS_TO_ACCEL:
                self._weights.load(op.layer, op.parts[0])
            case _:
                self._passes[op.batch].run(op)
