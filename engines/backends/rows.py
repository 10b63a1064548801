"""The rows of one batch as tensors: which tokens go in, where their KV goes, who attends to what, who samples.

Order of rows: decodes first, then each prefill chunk. Built once per step, used by every layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engines.backends.buffers import BlockTables
from engines.core.types import Batch, PrefillChunk

# Up to so many rows the decode kernel, row by row, is faster than a matrix product over gathered pages: the product has
# a fixed cost of some hundred microseconds on a CPU, the kernel of a few.
SHORT_CHUNK = 32


@dataclass(frozen=True, slots=True)
class PrefillSegment:
    """Rows `first_row .. first_row + length` hold positions `start ..` of one request."""

    first_row: int
    length: int
    start: int
    blocks: torch.Tensor  # [blocks] int64: the request's table up to the end of this chunk
    row_tables: torch.Tensor | None = None  # [length, blocks] int32, for chunks so short that rows are cheaper
    row_contexts: torch.Tensor | None = None  # [length] int32


@dataclass(frozen=True, slots=True)
class Rows:
    token_ids: torch.Tensor  # [rows] int64
    positions: torch.Tensor  # [rows] int64
    page_ids: torch.Tensor  # [rows] int32: page that takes the row's key and value
    offsets: torch.Tensor  # [rows] int32: place within that page
    decode_rows: int
    decode_tables: torch.Tensor  # [decode rows, pages] int32
    decode_contexts: torch.Tensor  # [decode rows] int32, this token included
    prefills: tuple[PrefillSegment, ...]
    sample_rows: torch.Tensor | None  # [samples] int64; None: every row samples
    sample_requests: tuple[int, ...]
    sample_positions: tuple[int, ...]  # position of the token that will be sampled


def build_rows(
    batch: Batch,
    tables: BlockTables,
    sequences: Mapping[int, Sequence[int]],
    page_tokens: int,
    device: torch.device,
) -> Rows:
    slots = np.array(batch.decode_slots, dtype=np.int64)
    positions = np.array(batch.decode_positions, dtype=np.int64)
    pages = tables.blocks[slots, positions // page_tokens]
    width = int(positions.max()) // page_tokens + 1 if len(slots) else 1
    last_tokens = [sequences[tables.request_of[slot]][-1] for slot in batch.decode_slots]
    token_parts = [np.array(last_tokens, dtype=np.int64)]
    position_parts, page_parts = [positions], [pages]
    segments = []
    first_row = len(slots)
    for chunk in batch.prefills:
        span, chunk_pages = _chunk_columns(chunk, tables, page_tokens)
        end = chunk.start + chunk.length
        token_parts.append(np.array(sequences[chunk.request_id][chunk.start : end], dtype=np.int64))
        position_parts.append(span)
        page_parts.append(chunk_pages)
        segments.append(_segment(chunk, tables.blocks[chunk.slot, : -(-end // page_tokens)], first_row, device))
        first_row += chunk.length
    all_positions = np.concatenate(position_parts)
    sample_rows, requests, sample_positions = _samples(batch, tables, segments)
    return Rows(
        token_ids=_tensor(np.concatenate(token_parts), device),
        positions=_tensor(all_positions, device),
        page_ids=_tensor(np.concatenate(page_parts), device),
        offsets=_tensor((all_positions % page_tokens).astype(np.int32), device),
        decode_rows=len(slots),
        decode_tables=_tensor(np.ascontiguousarray(tables.blocks[slots, :width]), device),
        decode_contexts=_tensor((positions + 1).astype(np.int32), device),
        prefills=tuple(segments),
        sample_rows=None if sample_rows is None else _tensor(sample_rows, device),
        sample_requests=requests,
        sample_positions=sample_positions,
    )


def _segment(chunk: PrefillChunk, table: npt.NDArray[np.int32], first_row: int, device: torch.device) -> PrefillSegment:
    blocks = _tensor(table.astype(np.int64), device)
    if chunk.length > SHORT_CHUNK:
        return PrefillSegment(first_row, chunk.length, chunk.start, blocks)
    contexts = np.arange(chunk.start + 1, chunk.start + chunk.length + 1, dtype=np.int32)
    row_tables = np.repeat(table[None], chunk.length, axis=0)
    return PrefillSegment(
        first_row, chunk.length, chunk.start, blocks, _tensor(row_tables, device), _tensor(contexts, device)
    )


def _chunk_columns(
    chunk: PrefillChunk, tables: BlockTables, page_tokens: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    span = np.arange(chunk.start, chunk.start + chunk.length, dtype=np.int64)
    return span, tables.blocks[chunk.slot, span // page_tokens]


def _samples(
    batch: Batch, tables: BlockTables, segments: list[PrefillSegment]
) -> tuple[npt.NDArray[np.int64] | None, tuple[int, ...], tuple[int, ...]]:
    requests = [tables.request_of[slot] for slot in batch.decode_slots]
    positions = [position + 1 for position in batch.decode_positions]
    if not segments:
        return None, tuple(requests), tuple(positions)
    rows = list(range(len(requests)))
    for chunk, segment in zip(batch.prefills, segments, strict=True):
        if chunk.samples:
            rows.append(segment.first_row + segment.length - 1)
            requests.append(chunk.request_id)
            positions.append(chunk.start + chunk.length)
    return np.array(rows, dtype=np.int64), tuple(requests), tuple(positions)


def _tensor(values: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
