"""One batch on its way through placed layers: the tensors between two ops, wherever they are.

Not here: when what runs and in which thread (placed_backend.py, from core/placed.py), where matrices are
(placed_weights.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engines.apex.attention import Pool
from engines.backends.attention_ops import KvRows, NativeOps, PagedOps
from engines.backends.layered_kv import LayeredKv
from engines.backends.placed_weights import PlacedWeights
from engines.backends.rows import Places, PrefillSegment, Rows
from engines.core.ops import Op, OpKind, RowsOf
from engines.core.placement import Part
from engines.core.units import Tier
from engines.model.decoder import Decoder

Sampler = Callable[[Tensor, Sequence[int], Sequence[int]], list[int]]  # logits, requests, positions
CPU = torch.device("cpu")


class PlacedPass:
    """`models`: the one model as either side sees it; `rows`: the one batch likewise. On `cpu` they are the same."""

    def __init__(
        self,
        models: tuple[Decoder, Decoder],
        weights: PlacedWeights,
        kv: LayeredKv,
        ops: PagedOps,
        rows: tuple[Rows, Rows],
        sampler: Sampler,
        pool: Pool | None,
    ) -> None:
        self._model, self._host_model = models
        self._weights = weights
        self._kv = kv
        self._ops = ops
        self._host_ops = NativeOps(pool)
        self._rows, self._host_rows = rows
        self._sampler = sampler
        self._hidden = self._model.embed(self._rows.token_ids, self._rows.positions)
        self._query = self._attended = torch.empty(0)
        self._fresh = KvRows(self._query, self._query)
        self._flow = torch.empty(0)  # between the up and the down matrix
        self._host_input = torch.empty(0)  # what the host's columns read
        self._own = self._theirs = torch.empty(0)  # what either side made of its columns
        self._host_attended = torch.empty(0)  # of decodes, while prompts attend on the accelerator
        self._host_query, self._host_fresh = self._query, self._fresh
        self.sampled: list[int] = []

    def run(self, op: Op) -> None:
        """Of the ops that move weights nothing is known here."""
        match op.kind:
            case OpKind.MATRIX:
                self._matrix(op)
            case OpKind.HOST_MATRIX:
                self._host_matrix(op)
            case OpKind.INPUT_TO_HOST:
                self._input_to_host(op)
            case OpKind.INPUT_TO_ACCEL:
                self._input_to_accel(op)
            case OpKind.OUTPUT_TO_ACCEL:
                self._output_to_accel(op)
            case OpKind.HIDDEN_TO_HOST:
                self._hidden = self._hidden.cpu()
            case OpKind.HIDDEN_TO_ACCEL:
                self._hidden = self._hidden.to(self._model.device)
            case OpKind.QKV_TO_HOST:
                self._qkv_to_host(op)
            case OpKind.ATTENTION:
                self._attention(op)
            case OpKind.IN_PLACE_ATTENTION:
                self._in_place(op)
            case OpKind.KV_TO_HOST:
                self._kv_to_host(op)
            case OpKind.KV_TO_ACCEL | OpKind.WRITE_KV:
                """Attention reads the host's pages where it needs them; a file's are written back by the system."""
            case OpKind.READ_KV:
                self._read_kv(op)
            case _:
                self._head()

    # --- matrices ----------------------------------------------------------------------------------------------------

    def _matrix(self, op: Op) -> None:
        for part in op.parts:
            rows = self._input(self._model, op.layer, part)
            made = self._weights.on_accelerator(op.layer, part, rows)
            if op.share < 1.0:
                self._own = made  # the host's columns are still to come
            else:
                self._take(self._model, self._rows, part, made)

    def _host_matrix(self, op: Op) -> None:
        if op.share < 1.0:
            self._theirs = self._weights.on_host(op.layer, op.parts[0], self._host_input)
            return
        for part in op.parts:
            rows = self._input(self._host_model, op.layer, part)
            self._take(self._host_model, self._host_rows, part, self._weights.on_host(op.layer, part, rows))

    def _input(self, model: Decoder, layer: int, part: Part) -> Tensor:
        match part:
            case Part.QKV:
                return model.attention_input(layer, self._hidden)
            case Part.OUTPUT:
                return self._attended.flatten(1)
            case Part.UP:
                return model.ffn_input(layer, self._hidden)
            case Part.DOWN:
                return self._flow

    def _take(self, model: Decoder, rows: Rows, part: Part, made: Tensor) -> None:
        match part:
            case Part.QKV:
                self._query, key, value = model.heads(made, rows.positions)
                self._fresh = KvRows(key, value)
            case Part.UP:
                self._flow = model.activated(made)
            case _:
                self._hidden = self._hidden.add_(made)

    def _input_to_host(self, op: Op) -> None:
        """Some of the columns are the host's: it gets a copy. All of them: what it reads moves."""
        part = op.parts[0]
        if op.share < 1.0:
            self._host_input = self._input(self._model, op.layer, part).cpu()
        elif part is Part.DOWN:
            self._flow = self._flow.cpu()
        else:
            self._attended = self._attended.cpu()

    def _input_to_accel(self, op: Op) -> None:
        if op.parts[0] is Part.DOWN:
            self._flow = self._flow.to(self._model.device)
        elif op.rows is RowsOf.DECODES:
            self._attended[: self._rows.decode_rows].copy_(self._host_attended)
        else:
            self._attended = self._attended.to(self._model.device)

    def _output_to_accel(self, op: Op) -> None:
        """Columns that the host made join the others; or all of query, key and value, for attention over here."""
        device = self._model.device
        if op.share < 1.0:
            made = torch.cat((self._own, self._theirs.to(device)), dim=1)
            self._take(self._model, self._rows, op.parts[0], made)
        else:
            self._query = self._query.to(device)
            self._fresh = KvRows(self._fresh.key.to(device), self._fresh.value.to(device))

    # --- attention ---------------------------------------------------------------------------------------------------

    def _attention(self, op: Op) -> None:
        rows, layer = self._rows, op.layer
        self._attended = torch.empty_like(self._query)
        if op.rows is RowsOf.PROMPTS:
            self._prompts(self._ops, layer, [_on_host(segment) for segment in rows.prefills])
            return
        if rows.accel is not None:
            self._kv.append(self._ops, layer, self._fresh, rows.accel)
        self._decodes(self._ops, layer, rows, self._query, self._attended)
        self._prompts(self._ops, layer, rows.prefills)

    def _in_place(self, op: Op) -> None:
        """In the host's thread; decodes alone while prompts attend on the accelerator."""
        rows, layer = self._host_rows, op.layer
        if op.rows is RowsOf.DECODES and rows.prefills:
            count = rows.decode_rows
            self._host_attended = torch.empty_like(self._host_query)
            self._kv.append(self._host_ops, layer, self._host_fresh, _first(rows.accel, count))
            self._decodes(self._host_ops, layer, rows, self._host_query, self._host_attended)
            return
        self._attended = torch.empty_like(self._query)
        if rows.accel is not None:
            self._kv.append(self._host_ops, layer, self._fresh, rows.accel)
        self._decodes(self._host_ops, layer, rows, self._query, self._attended)
        self._prompts(self._host_ops, layer, rows.prefills)

    def _decodes(self, ops: PagedOps, layer: int, rows: Rows, query: Tensor, out: Tensor) -> None:
        count = rows.decode_rows
        if count:
            pages, tables = self._kv.window(layer, rows.decode_tables, rows.decode_contexts)
            ops.decode(query[:count], pages, replace(rows, decode_tables=tables), out[:count])

    def _prompts(self, ops: PagedOps, layer: int, segments: Sequence[PrefillSegment]) -> None:
        for segment in segments:
            span = slice(segment.first_row, segment.first_row + segment.length)
            pages, where = self._kv.window_of(layer, segment)
            chunk = self._fresh.span(segment.first_row, segment.length)
            ops.prefill(self._query[span], chunk, pages, where, self._attended[span])

    def _qkv_to_host(self, op: Op) -> None:
        count = self._rows.decode_rows if op.rows is RowsOf.DECODES else len(self._query)
        query, key, value = (each[:count].cpu() for each in (self._query, self._fresh.key, self._fresh.value))
        if op.rows is RowsOf.DECODES and self._rows.prefills:
            self._host_query, self._host_fresh = query, KvRows(key, value)
        else:
            self._query, self._fresh = query, KvRows(key, value)

    def _kv_to_host(self, op: Op) -> None:
        first = self._rows.decode_rows
        fresh = KvRows(self._fresh.key[first:].cpu(), self._fresh.value[first:].cpu())
        places = self._host_rows.accel
        assert places is not None
        self._kv.append(self._host_ops, op.layer, fresh, Places(places.page_ids[first:], places.offsets[first:]))

    def _read_kv(self, op: Op) -> None:
        rows = self._host_rows
        if op.rows is not RowsOf.PROMPTS and rows.decode_rows:
            self._kv.touch(op.layer, torch.unique(rows.decode_tables).long())
        if op.rows is not RowsOf.DECODES:
            for segment in rows.prefills:
                self._kv.touch(op.layer, segment.blocks.cpu())

    # --- the end -----------------------------------------------------------------------------------------------------

    def _head(self) -> None:
        rows = self._rows
        sampling = self._hidden if rows.sample_rows is None else self._hidden[rows.sample_rows]
        self.sampled = self._sampler(self._model.logits(sampling), rows.sample_requests, rows.sample_positions)


def _on_host(segment: PrefillSegment) -> PrefillSegment:
    """Its pages are the host's: only what came before the chunk is read from them."""
    return replace(segment, tier=Tier.HOST, row_tables=None, row_contexts=None, blocks=segment.blocks.cpu())


def _first(places: Places | None, count: int) -> Places:
    assert places is not None
    return Places(places.page_ids[:count], places.offsets[:count])
