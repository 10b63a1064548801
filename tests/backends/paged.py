"""Requests with random keys and values in shuffled pages, and attention over them in float64 without any paging."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.backends.attention_ops import KvRows, PagedOps, Pages
from engines.backends.buffers import BlockTables
from engines.backends.rows import Rows, build_rows
from engines.core.types import Batch, BlockChanges, PrefillChunk, SlotStart, Tier

PAGE_TOKENS = 16
BLOCKS = 96
HEAD_DIM = 32
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Heads:
    query: int
    kv: int


@dataclass(frozen=True)
class Scene:
    """One batch: `history` and `fresh` of each request are tokens before this step and tokens of this step."""

    heads: Heads
    rows: Rows
    query: Tensor  # [rows, query_heads, head_dim]
    fresh: KvRows
    keys: tuple[Tensor, ...]  # per row: [context, kv_heads, head_dim], the row's own token last
    values: tuple[Tensor, ...]
    store: tuple[Tensor, Tensor]  # pages with the history written

    def run(self, ops: PagedOps) -> tuple[Tensor, Pages]:
        """What TorchExecutor does with one layer."""
        pages = Pages(self.store[0].clone(), self.store[1].clone())
        out = torch.full(self.query.shape, torch.nan)
        assert self.rows.accel is not None
        ops.append(self.fresh, pages, self.rows.accel)
        decodes = self.rows.decode_rows
        if decodes:
            ops.decode(self.query[:decodes], pages, self.rows, out[:decodes])
        for segment in self.rows.prefills:
            span = slice(segment.first_row, segment.first_row + segment.length)
            ops.prefill(self.query[span], self.fresh.span(segment.first_row, segment.length), pages, segment, out[span])
        return out, pages

    def expected(self) -> Tensor:
        """Row by row over its own context, in float64."""
        group = self.heads.query // self.heads.kv
        rows = []
        for query, keys, values in zip(self.query.double(), self.keys, self.values, strict=True):
            k, v = (each.double().repeat_interleave(group, dim=1) for each in (keys, values))
            shares = (torch.einsum("hd,thd->ht", query, k) / HEAD_DIM**0.5).softmax(-1)
            rows.append(torch.einsum("ht,thd->hd", shares, v))
        return torch.stack(rows)


def scene(heads: Heads, decode_positions: tuple[int, ...], chunks: tuple[tuple[int, int], ...], seed: int = 0) -> Scene:
    """`chunks` are (start, length). Slots and blocks are shuffled, so that nothing is right by accident."""
    draw = torch.Generator().manual_seed(seed)
    spans = [(position, 1) for position in decode_positions] + list(chunks)
    slots = torch.randperm(len(spans), generator=draw).tolist()
    tables, free = BlockTables(len(spans), BLOCKS), torch.randperm(BLOCKS, generator=draw).tolist()
    for request, (slot, (start, length)) in enumerate(zip(slots, spans, strict=True)):
        blocks = [free.pop() for _ in range(-(-(start + length) // PAGE_TOKENS))]
        tables.apply(BlockChanges((), (SlotStart(slot, request, Tier.ACCEL),), (slot,) * len(blocks), tuple(blocks)))
    batch = Batch(
        tuple(slots[: len(decode_positions)]),
        decode_positions,
        tuple(
            PrefillChunk(slots[index], index, start, length, True)
            for index, (start, length) in enumerate(chunks, start=len(decode_positions))
        ),
    )
    sequences = {request: list(range(start + length)) for request, (start, length) in enumerate(spans)}
    rows = build_rows(batch, tables, sequences, {Tier.ACCEL: PAGE_TOKENS, Tier.HOST: 4 * PAGE_TOKENS}, CPU)
    return _with_tensors(heads, rows, spans, [tables.blocks[slot].tolist() for slot in slots], draw)


def _with_tensors(
    heads: Heads, rows: Rows, spans: list[tuple[int, int]], tables: list[list[int]], draw: torch.Generator
) -> Scene:
    count = sum(length for _, length in spans)
    fused = torch.randn(count, heads.query + 2 * heads.kv, HEAD_DIM, generator=draw)  # rows are strided, as the model's
    ends = heads.query, heads.query + heads.kv
    query, key, value = fused[:, : ends[0]], fused[:, ends[0] : ends[1]], fused[:, ends[1] :]
    store = tuple(torch.full((BLOCKS, heads.kv, PAGE_TOKENS, HEAD_DIM), 1e4) for _ in range(2))
    row, keys, values = 0, [], []
    for (start, length), table in zip(spans, tables, strict=True):
        history = torch.randn(2, start, heads.kv, HEAD_DIM, generator=draw)
        for pages, tokens in zip(store, history, strict=True):
            for position in range(start):
                pages[table[position // PAGE_TOKENS], :, position % PAGE_TOKENS] = tokens[position]
        whole = [torch.cat((past, own[row : row + length])) for past, own in zip(history, (key, value), strict=True)]
        keys += [whole[0][: start + index + 1] for index in range(length)]
        values += [whole[1][: start + index + 1] for index in range(length)]
        row += length
    return Scene(heads, rows, query, KvRows(key, value), tuple(keys), tuple(values), (store[0], store[1]))
