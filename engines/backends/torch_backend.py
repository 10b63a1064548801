"""Runs plans with real tensors. One class for `cpu` and `cuda`: the device is a parameter.

The launching thread is the accelerator on `cpu`; on `cuda` it feeds the stream. Ops come from `lower()` in an order
that respects their dependencies; the pace decides how long each may look like taking (pacing.py). Host attention runs
in the threads of the native pool: what is submitted there overlaps with whatever the launching thread does next.
"""

from collections.abc import Sequence

import torch

from engines.apex.attention import Pool
from engines.backends.attention_ops import NativeOps, PagedOps, TorchOps
from engines.backends.batch_pass import BatchPass, Stores
from engines.backends.buffers import BlockTables, KvShape, PagedKv
from engines.backends.conversations import GREEDY, Conversations
from engines.backends.flights import Flight, FlightRunner
from engines.backends.moves import KvMover
from engines.backends.pacing import Pace
from engines.backends.rows import build_rows, host_rows
from engines.core.cohorts import run_pass
from engines.core.errors import UnsupportedPlanError
from engines.core.ops import Op, OpKind
from engines.core.pipeline import lower
from engines.core.placement import Placement
from engines.core.types import Batch, Capabilities, CohortPlan, StepPlan, StepResult, Tier
from engines.model.decoder import Decoder
from engines.model.sampler import Sampling


class TorchExecutor:
    """`pool`: the host's threads, or None where nothing attends there."""

    def __init__(
        self,
        model: Decoder,
        capabilities: Capabilities,
        placement: Placement,
        pace: Pace,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
        sampling: Sampling = GREEDY,
        pool: Pool | None = None,
    ) -> None:
        config = model.config
        shape = KvShape(config.layers, config.kv_heads, config.head_dim, dtype)
        self._model = model
        self._capabilities = capabilities
        self._placement = placement
        self._pace = pace
        self._device = device
        self._pool = pool
        self._stores: Stores = {
            Tier.ACCEL: PagedKv(shape, capabilities.accel, device),
            Tier.HOST: PagedKv(shape, capabilities.host, torch.device("cpu"), pin=device.type == "cuda"),
        }
        self._mover = KvMover(self._stores)
        self._ops: PagedOps = NativeOps() if device.type == "cpu" else TorchOps()
        self._page_tokens = {tier: capabilities.tier(tier).page_tokens for tier in self._stores}
        longest = [min(capabilities.tier(tier).tokens, capabilities.max_model_tokens) for tier in self._stores]
        pages = [-(-tokens // size) for tokens, size in zip(longest, self._page_tokens.values(), strict=True)]
        self._tables = BlockTables(slots, max(pages))
        self._talk = Conversations(sampling)
        self._flights: dict[int, Flight] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def register(self, request_id: int, prompt_token_ids: Sequence[int]) -> None:
        self._talk.register(request_id, prompt_token_ids)

    def forget(self, request_id: int) -> None:
        self._talk.forget(request_id)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        return self._fly(plan) if plan.cohorts else self._run(plan)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()  # first: its threads read the pages
        self._flights.clear()
        self._stores.clear()
        self._talk.clear()

    # --- a step whose ops are known beforehand -----------------------------------------------------------------------

    def _run(self, plan: StepPlan) -> StepResult:
        program = lower(plan, self._placement)
        self._tables.apply(plan.changes)
        passes = [self._begin(batch) for batch in plan.batches]
        pace = self._pace.step(plan, program)  # preparing belongs to the overhead between two steps
        for op in program.ops:
            pace.before(op)
            state = passes[op.batch]
            if op.kind is OpKind.HOST_ATTENTION:
                state.submit_host(op.layer)
                pace.submitted(op)
                continue
            if op.kind is OpKind.ROWS_TO_ACCEL:
                (submitted,) = op.after
                pace.returned(program.ops[submitted], state.job)
            self._execute(op, plan, state)
            pace.after(op)
        ended_s, units = pace.finish()
        tokens = [token for each in passes for token in each.sampled]
        return StepResult(tokens, pace.started_s, ended_s, units)

    def _execute(self, op: Op, plan: StepPlan, state: BatchPass) -> None:
        match op.kind:
            case OpKind.MOVE:
                self._mover.copy(plan.moves[op.move])
            case OpKind.FIRST:
                state.first(())
            case OpKind.ATTENTION:
                state.accel_attention(op.layer)
            case OpKind.BETWEEN:
                state.between(op.layer, ())
            case OpKind.LAST:
                state.last(op.layer, ())
            case OpKind.ROWS_TO_HOST:
                state.rows_to_host(op.layer)
            case OpKind.ROWS_TO_ACCEL:
                state.rows_to_accel()
            case OpKind.PROMPT_TO_HOST:
                state.prompt_to_host(op.layer)
            case OpKind.PROMPT_TO_ACCEL:
                """Prefill attention reads the host's pages where it needs them."""
            case OpKind.HOST_ATTENTION:
                raise UnsupportedPlanError("host attention is submitted, not executed")

    # --- a pass with cohorts -----------------------------------------------------------------------------------------

    def _fly(self, plan: StepPlan) -> StepResult:
        self._tables.apply(plan.changes)
        (batch,) = plan.batches
        state = self._begin(batch)
        for cohort in plan.cohorts:
            if cohort.cohort not in self._flights:
                self._flights[cohort.cohort] = self._flight(cohort)
        for move in plan.moves:
            self._mover.copy(move)
        pace = self._pace.flight(plan)
        runner = FlightRunner(state, pace, self._flights)
        answers, finished = run_pass(plan.cohorts, self._model.config.layers, runner)
        for number in finished:
            del self._flights[number]
        ended_s, units = pace.finish()
        return StepResult(state.sampled, pace.started_s, ended_s, units, answers, finished)

    def _flight(self, cohort: CohortPlan) -> Flight:
        pages = self._page_tokens[Tier.HOST]
        rows = host_rows(cohort.slots, cohort.positions, self._tables, self._talk.sequences, pages)
        return Flight(rows, *BatchPass.nothing(self._model, torch.device("cpu"), len(cohort.slots)))

    # --- one plan ----------------------------------------------------------------------------------------------------

    def _begin(self, batch: Batch) -> BatchPass:
        rows = build_rows(batch, self._tables, self._talk.sequences, self._page_tokens, self._device)
        return BatchPass(self._model, self._ops, self._stores, rows, self._talk.sample, self._pool)
