"""The rows of one batch as tensors: which tokens go in, where their KV goes, who attends to what, who samples.

Order of rows: decodes, decodes whose KV is on the host, then each prefill chunk. Built once per step, used by every
layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engines.backends.buffers import BlockTables
from engines.core.types import Batch, PrefillChunk, Tier

# Up to so many rows the decode kernel, row by row, is faster than a matrix product over gathered pages: the product has
# a fixed cost of some hundred microseconds on a CPU, the kernel of a few.
SHORT_CHUNK = 32

_CPU = torch.device("cpu")
_NOTHING = (0,)


@dataclass(frozen=True, slots=True)
class PrefillSegment:
    """Rows `first_row .. first_row + length` hold positions `start ..` of one request."""

    first_row: int
    length: int
    start: int
    blocks: torch.Tensor  # [blocks] int64: the request's table up to the end of this chunk
    row_tables: torch.Tensor | None = None  # [length, blocks] int32, for chunks so short that rows are cheaper
    row_contexts: torch.Tensor | None = None  # [length] int32
    tier: Tier = Tier.ACCEL  # where `blocks` are


@dataclass(frozen=True, slots=True)
class Places:
    """Where keys and values of some rows go."""

    page_ids: torch.Tensor  # [rows] int32: page that takes the row's key and value
    offsets: torch.Tensor  # [rows] int32: place within that page
    rows: torch.Tensor | None = None  # [rows] int64: which rows of the batch; None: all of them

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.rows is None else tensor.index_select(0, self.rows)


@dataclass(frozen=True, slots=True)
class HostRows:
    """Decode rows whose KV is on the host: consecutive in their batch, on the host themselves."""

    token_ids: torch.Tensor  # [rows] int64
    positions: torch.Tensor  # [rows] int64
    places: Places
    tables: torch.Tensor  # [rows, pages] int32
    contexts: torch.Tensor  # [rows] int32, this token included
    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    token_ids: torch.Tensor  # [rows] int64
    positions: torch.Tensor  # [rows] int64
    accel: Places | None  # None: no row's KV stays on the accelerator
    staged: Places | None  # prompt rows whose KV goes to the host
    host: HostRows | None
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
    pages: Mapping[Tier, int],
    device: torch.device,
) -> Rows:
    """`pages`: tokens per page of each tier."""
    decode_slots = np.array(batch.decode_slots, dtype=np.int64)
    decode_positions = np.array(batch.decode_positions, dtype=np.int64)
    page_tokens = pages[Tier.ACCEL]
    width = int(decode_positions.max()) // page_tokens + 1 if len(decode_slots) else 1
    host = None
    if batch.host_slots:
        host = host_rows(batch.host_slots, batch.host_positions, tables, sequences, pages[Tier.HOST])
    token_parts = [np.array(_last_tokens(batch.decode_slots, tables, sequences), dtype=np.int64)]
    position_parts = [decode_positions]
    if host is not None:
        token_parts.append(host.token_ids.numpy())
        position_parts.append(host.positions.numpy())
    segments = []
    first_row = len(decode_slots) + len(batch.host_slots)
    for chunk in batch.prefills:
        end = chunk.start + chunk.length
        token_parts.append(np.array(sequences[chunk.request_id][chunk.start : end], dtype=np.int64))
        position_parts.append(np.arange(chunk.start, end, dtype=np.int64))
        table = tables.blocks[chunk.slot, : -(-end // pages[chunk.tier])]
        segments.append(_segment(chunk, table, first_row, device))
        first_row += chunk.length
    sample_rows, requests, sample_positions = _samples(batch, tables, segments)
    accel, staged = _places(batch, tables, pages, device)
    return Rows(
        token_ids=_tensor(np.concatenate(token_parts), device),
        positions=_tensor(np.concatenate(position_parts), device),
        accel=accel,
        staged=staged,
        host=host,
        decode_rows=len(decode_slots),
        decode_tables=_tensor(np.ascontiguousarray(tables.blocks[decode_slots, :width]), device),
        decode_contexts=_tensor((decode_positions + 1).astype(np.int32), device),
        prefills=tuple(segments),
        sample_rows=None if sample_rows is None else _tensor(sample_rows, device),
        sample_requests=requests,
        sample_positions=sample_positions,
    )


def host_rows(
    slots: Sequence[int],
    positions: Sequence[int],
    tables: BlockTables,
    sequences: Mapping[int, Sequence[int]],
    page_tokens: int,
) -> HostRows:
    """What an aborted request, which flies to the end with its cohort, computes does not matter: token 0."""
    slot_column, position_column = np.array(slots, dtype=np.int64), np.array(positions, dtype=np.int64)
    width = int(position_column.max()) // page_tokens + 1
    return HostRows(
        token_ids=torch.tensor(_last_tokens(slots, tables, sequences)),
        positions=torch.from_numpy(position_column),
        places=_written(slot_column, position_column, tables, page_tokens, _CPU),
        tables=torch.from_numpy(np.ascontiguousarray(tables.blocks[slot_column, :width])),
        contexts=torch.from_numpy((position_column + 1).astype(np.int32)),
        requests=tuple([tables.request_of[slot] for slot in slots]),
    )


def _last_tokens(slots: Sequence[int], tables: BlockTables, sequences: Mapping[int, Sequence[int]]) -> list[int]:
    return [sequences.get(tables.request_of[slot], _NOTHING)[-1] for slot in slots]


def _places(
    batch: Batch, tables: BlockTables, pages: Mapping[Tier, int], device: torch.device
) -> tuple[Places | None, Places | None]:
    """Of rows whose KV stays on the accelerator, and of prompt rows whose KV leaves it."""
    decodes = len(batch.decode_slots)
    parts: dict[Tier, list[tuple[npt.NDArray[np.int64], ...]]] = {Tier.ACCEL: [], Tier.HOST: []}
    if decodes:
        columns = (np.array(batch.decode_slots, dtype=np.int64), np.array(batch.decode_positions, dtype=np.int64))
        parts[Tier.ACCEL].append((*columns, np.arange(decodes, dtype=np.int64)))
    first_row = decodes + len(batch.host_slots)
    for chunk in batch.prefills:
        span = np.arange(chunk.start, chunk.start + chunk.length, dtype=np.int64)
        rows = np.arange(first_row, first_row + chunk.length, dtype=np.int64)
        parts[chunk.tier].append((np.full(chunk.length, chunk.slot, dtype=np.int64), span, rows))
        first_row += chunk.length
    whole = not batch.host_slots and not parts[Tier.HOST]
    found: list[Places | None] = []
    for tier, columns_of_tier in parts.items():
        if not columns_of_tier:
            found.append(None)
            continue
        slots, positions, rows = (np.concatenate(column) for column in zip(*columns_of_tier, strict=True))
        where = device if tier is Tier.ACCEL else _CPU
        places = _written(slots, positions, tables, pages[tier], where)
        found.append(places if whole else Places(places.page_ids, places.offsets, _tensor(rows, device)))
    return found[0], found[1]


def _written(
    slots: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    tables: BlockTables,
    page_tokens: int,
    device: torch.device,
) -> Places:
    page_ids = tables.blocks[slots, positions // page_tokens]
    return Places(_tensor(page_ids, device), _tensor((positions % page_tokens).astype(np.int32), device))


def _segment(chunk: PrefillChunk, table: npt.NDArray[np.int32], first_row: int, device: torch.device) -> PrefillSegment:
    if chunk.tier is Tier.HOST:
        blocks = torch.from_numpy(table.astype(np.int64))
        return PrefillSegment(first_row, chunk.length, chunk.start, blocks, tier=Tier.HOST)
    blocks = _tensor(table.astype(np.int64), device)
    if chunk.length > SHORT_CHUNK:
        return PrefillSegment(first_row, chunk.length, chunk.start, blocks)
    contexts = np.arange(chunk.start + 1, chunk.start + chunk.length + 1, dtype=np.int32)
    row_tables = np.repeat(table[None], chunk.length, axis=0)
    return PrefillSegment(
        first_row, chunk.length, chunk.start, blocks, _tensor(row_tables, device), _tensor(contexts, device)
    )


def _samples(
    batch: Batch, tables: BlockTables, segments: list[PrefillSegment]
) -> tuple[npt.NDArray[np.int64] | None, tuple[int, ...], tuple[int, ...]]:
    requests = [tables.request_of[slot] for slot in batch.decode_slots + batch.host_slots]
    positions = [position + 1 for position in batch.decode_positions + batch.host_positions]
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
