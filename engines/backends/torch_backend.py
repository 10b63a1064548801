"""Runs plans with real tensors. One class for `cpu` and `cuda`: the device is a parameter.

The launching thread is the accelerator on `cpu`; on `cuda` it feeds the stream. Ops come from `lower()` in an order
that respects their dependencies; the pace decides how long each may look like taking (pacing.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from engines.backends.attention_ops import KvRows, NativeOps, PagedOps, Pages, TorchOps
from engines.backends.buffers import BlockTables, KvShape, PagedKv
from engines.backends.moves import KvMover
from engines.backends.pacing import Pace
from engines.backends.rows import Rows, build_rows
from engines.core.pipeline import Op, OpKind, lower
from engines.core.types import Batch, Capabilities, Placement, StepPlan, StepResult, Tier
from engines.model.llama import Llama
from engines.model.sampler import Sampling, sample

GREEDY = Sampling()


@dataclass(slots=True)
class _Pass:
    """What one batch carries from op to op."""

    rows: Rows
    hidden: torch.Tensor
    query: torch.Tensor
    fresh: KvRows
    attended: torch.Tensor | None  # [rows, query_heads, head_dim], one buffer for all layers
    sampled: list[int]


class TorchExecutor:
    def __init__(
        self,
        model: Llama,
        capabilities: Capabilities,
        placement: Placement,
        pace: Pace,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
        sampling: Sampling = GREEDY,
    ) -> None:
        config = model.config
        shape = KvShape(config.layers, config.kv_heads, config.head_dim, dtype)
        self._model = model
        self._capabilities = capabilities
        self._placement = placement
        self._pace = pace
        self._device = device
        self._stores = {
            Tier.ACCEL: PagedKv(shape, capabilities.accel, device),
            Tier.HOST: PagedKv(shape, capabilities.host, torch.device("cpu"), pin=device.type == "cuda"),
        }
        self._mover = KvMover(self._stores)
        self._ops: PagedOps = NativeOps() if device.type == "cpu" else TorchOps()
        most_tokens = min(capabilities.accel.tokens, capabilities.max_model_tokens)
        self._tables = BlockTables(slots, -(-most_tokens // capabilities.accel.page_tokens))
        self._sequences: dict[int, list[int]] = {}
        self._default = sampling
        self._sampling: dict[int, Sampling] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def register(self, request_id: int, prompt_token_ids: Sequence[int]) -> None:
        self._sequences[request_id] = list(prompt_token_ids)
        if not self._default.greedy:  # each request draws from a stream of its own, whatever shares its batch
            self._sampling[request_id] = replace(self._default, seed=self._default.seed + request_id)

    def forget(self, request_id: int) -> None:
        self._sequences.pop(request_id, None)
        self._sampling.pop(request_id, None)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        program = lower(plan, self._placement)
        self._tables.apply(plan.changes)
        passes = [self._begin(batch) for batch in plan.batches]
        pace = self._pace.step(plan, program)  # preparing belongs to the overhead between two steps
        for op in program.ops:
            pace.before(op)
            self._execute(op, plan, passes[op.batch])
            pace.after(op)
        ended_s, units = pace.finish()
        tokens = [token for each in passes for token in each.sampled]
        return StepResult(tokens, pace.started_s, ended_s, units)

    def close(self) -> None:
        self._stores.clear()
        self._sequences.clear()

    # --- one op ------------------------------------------------------------------------------------------------------

    def _execute(self, op: Op, plan: StepPlan, state: _Pass) -> None:
        match op.kind:
            case OpKind.MOVE:
                self._mover.copy(plan.moves[op.move])
            case OpKind.FIRST:
                state.hidden = self._model.embed(state.rows.token_ids)
                self._pre_attention(0, state)
            case OpKind.ATTENTION:
                self._attention(op.layer, state)
            case OpKind.BETWEEN:
                self._post_attention(op.layer, state)
                self._pre_attention(op.layer + 1, state)
            case OpKind.LAST:
                self._post_attention(op.layer, state)
                self._sample(state)
            case OpKind.HOST_ATTENTION:
                raise NotImplementedError("no lowering emits host attention yet")

    def _pre_attention(self, layer: int, state: _Pass) -> None:
        state.query, key, value = self._model.pre_attention(layer, state.hidden, state.rows.positions)
        state.fresh = KvRows(key, value)
        self._ops.append(state.fresh, self._pages(layer), state.rows)

    def _attention(self, layer: int, state: _Pass) -> None:
        rows, query, pages = state.rows, state.query, self._pages(layer)
        if state.attended is None:
            state.attended = torch.empty_like(query, memory_format=torch.contiguous_format)
        out, decodes = state.attended, rows.decode_rows
        if decodes:
            self._ops.decode(query[:decodes], pages, rows, out[:decodes])
        for segment in rows.prefills:
            first, length = segment.first_row, segment.length
            span = slice(first, first + length)
            self._ops.prefill(query[span], state.fresh.span(first, length), pages, segment, out[span])

    def _pages(self, layer: int) -> Pages:
        store = self._stores[Tier.ACCEL]
        return Pages(store.keys[layer], store.values[layer])

    def _post_attention(self, layer: int, state: _Pass) -> None:
        assert state.attended is not None
        state.hidden = self._model.post_attention(layer, state.hidden, state.attended.flatten(1))

    def _sample(self, state: _Pass) -> None:
        rows = state.rows
        if not rows.sample_requests:
            return
        hidden = state.hidden if rows.sample_rows is None else state.hidden[rows.sample_rows]
        settings = [self._sampling.get(request_id, GREEDY) for request_id in rows.sample_requests]
        state.sampled = sample(self._model.logits(hidden), settings, rows.sample_positions)
        for request_id, token in zip(rows.sample_requests, state.sampled, strict=True):
            self._sequences[request_id].append(token)

    # --- one plan ----------------------------------------------------------------------------------------------------

    def _begin(self, batch: Batch) -> _Pass:
        page_tokens = self._capabilities.accel.page_tokens
        rows = build_rows(batch, self._tables, self._sequences, page_tokens, self._device)
        empty = torch.empty(0)
        return _Pass(rows, empty, empty, KvRows(empty, empty), None, [])
