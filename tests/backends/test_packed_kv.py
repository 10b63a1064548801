"""Attention over a window of packed pages is attention over float pages that hold what packing left of the values."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engines.backends.attention_ops import KvRows, NativeOps, PagedOps, Pages, TorchOps
from engines.backends.buffers import KvShape
from engines.backends.compression import pack, unpack
from engines.backends.packed_kv import PackedPages, Workspace
from engines.backends.rows import Places, PrefillSegment
from engines.core.packing import even_group, packed_bytes
from engines.core.types import TierCapacity
from tests.backends.paged import BLOCKS, CPU, HEAD_DIM, PAGE_TOKENS, Heads, Scene, scene

OPS: tuple[PagedOps, ...] = (NativeOps(), TorchOps())
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHOWN = scene(Heads(8, 2), (3, 40, 111, 15, 16), ((0, 5), (0, 70), (17, 8), (30, 64), (16, 16)))


def packed_pages(kv_heads: int, dtype: torch.dtype = torch.float32, workspace: Workspace | None = None) -> PackedPages:
    return PackedPages(KvShape(1, kv_heads, HEAD_DIM, dtype), TierCapacity(BLOCKS, PAGE_TOKENS), CPU, workspace)


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def through_four_bits(tensor: Tensor) -> Tensor:
    return unpack(pack(tensor, even_group(tensor.shape[-1])))


def every_place(blocks: int) -> Places:
    positions = torch.arange(blocks * PAGE_TOKENS, dtype=torch.int32)
    return Places(positions // PAGE_TOKENS, positions % PAGE_TOKENS)


def tokens(pages: Tensor) -> Tensor:
    """[blocks, kv_heads, page_tokens, head_dim] -> [blocks * page_tokens, kv_heads, head_dim]: rows to append."""
    return pages.transpose(1, 2).flatten(0, 1)


def stores(shown: Scene) -> tuple[PackedPages, Pages]:
    """The scene's history and fresh rows, packed; and in float pages, as packing left them."""
    packed = packed_pages(shown.heads.kv)
    packed.append(tokens(shown.store[0]), tokens(shown.store[1]), every_place(BLOCKS))
    floats = Pages(through_four_bits(shown.store[0]), through_four_bits(shown.store[1]))
    assert shown.rows.accel is not None
    packed.append(shown.fresh.key, shown.fresh.value, shown.rows.accel)
    left = KvRows(through_four_bits(shown.fresh.key), through_four_bits(shown.fresh.value))
    TorchOps().append(left, floats, shown.rows.accel)
    return packed, floats


def decoded(ops: PagedOps, shown: Scene, pages: Pages, tables: Tensor) -> Tensor:
    decodes = shown.rows.decode_rows
    out = torch.full((decodes, *shown.query.shape[1:]), torch.nan)
    ops.decode(shown.query[:decodes], pages, replace(shown.rows, decode_tables=tables), out)
    return out


def prefilled(ops: PagedOps, shown: Scene, pages: Pages, segment: PrefillSegment) -> Tensor:
    span = slice(segment.first_row, segment.first_row + segment.length)
    out = torch.full(shown.query[span].shape, torch.nan)
    ops.prefill(shown.query[span], shown.fresh.span(segment.first_row, segment.length), pages, segment, out)
    return out


@pytest.mark.parametrize("ops", OPS, ids=lambda ops: type(ops).__name__)
def test_decodes_over_a_window_equal_decodes_over_float_pages(ops: PagedOps) -> None:
    packed, floats = stores(SHOWN)
    pages, tables = packed.window(SHOWN.rows.decode_tables, SHOWN.rows.decode_contexts)
    expected = decoded(ops, SHOWN, floats, SHOWN.rows.decode_tables)
    assert torch.equal(decoded(ops, SHOWN, pages, tables), expected)
    plain = SHOWN.expected()[: SHOWN.rows.decode_rows]
    assert 0.01 < (expected.double() - plain).abs().max() < 0.5, "packed, and yet the same attention"
    assert not torch.equal(decoded(ops, SHOWN, pages, tables.flip(0)), expected)


@pytest.mark.parametrize("ops", OPS, ids=lambda ops: type(ops).__name__)
def test_prompts_over_a_window_equal_prompts_over_float_pages(ops: PagedOps) -> None:
    packed, floats = stores(SHOWN)
    for segment in SHOWN.rows.prefills:
        table, contexts = segment.blocks[None].int(), int32(segment.start + segment.length)
        pages, tables = packed.window(table, contexts)
        renumbered = replace(segment, blocks=tables[0].long())
        if segment.row_tables is not None:
            renumbered = replace(renumbered, row_tables=tables.repeat(segment.length, 1))
        assert len(pages.keys) == len(segment.blocks)
        expected = prefilled(ops, SHOWN, floats, segment)
        assert torch.equal(prefilled(ops, SHOWN, pages, renumbered), expected)


def filled(dtype: torch.dtype = torch.float32, workspace: Workspace | None = None) -> tuple[PackedPages, Tensor]:
    """Every place of every page written; the keys and values [2, blocks, kv_heads, page_tokens, head_dim]."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, BLOCKS, 2, PAGE_TOKENS, HEAD_DIM, generator=generator).to(dtype)
    packed = packed_pages(2, dtype, workspace)
    packed.append(tokens(values[0]), tokens(values[1]), every_place(BLOCKS))
    return packed, values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_window_holds_each_page_that_is_used_once(dtype: torch.dtype) -> None:
    packed, values = filled(dtype)
    tables = torch.tensor([[7, 3, 90], [3, 50, 60], [7, 61, 7]], dtype=torch.int32)
    pages, renumbered = packed.window(tables, int32(2 * PAGE_TOKENS + 1, PAGE_TOKENS + 1, PAGE_TOKENS))
    used = [7, 3, 90, 3, 50, 7]  # 60, 61 and the last 7 are beyond their contexts
    assert len(pages.keys) == len(pages.values) == len(set(used)) == 4
    assert (renumbered.dtype, renumbered.shape) == (torch.int32, tables.shape)
    assert 0 <= int(renumbered.min()) <= int(renumbered.max()) < 4
    places = [*renumbered[0].tolist(), *renumbered[1, :2].tolist(), int(renumbered[2, 0])]
    for block, place in zip(used, places, strict=True):
        assert torch.equal(pages.keys[place], through_four_bits(values[0, block]))
        assert torch.equal(pages.values[place], through_four_bits(values[1, block]))


def test_a_window_without_rows_is_empty() -> None:
    pages, tables = filled()[0].window(torch.empty(0, 3, dtype=torch.int32), torch.empty(0, dtype=torch.int32))
    assert (len(pages.keys), tables.shape) == (0, (0, 3))


def test_append_writes_its_rows_and_nothing_else() -> None:
    packed, _ = filled()
    everything = torch.arange(BLOCKS, dtype=torch.int32)[None], int32(BLOCKS * PAGE_TOKENS)
    before, _ = packed.window(*everything)
    fresh = torch.randn(5, 6, HEAD_DIM, generator=torch.Generator().manual_seed(1))  # strided, as the model's are
    places = Places(int32(4, 4, 80), int32(0, 15, 9), torch.tensor([3, 0, 4]))
    packed.append(fresh[:, 1:3], fresh[:, 4:], places)
    after, tables = packed.window(*everything)
    assert torch.equal(tables, everything[0])
    for old, new, rows in ((before.keys, after.keys, fresh[:, 1:3]), (before.values, after.values, fresh[:, 4:])):
        expected = old.clone()
        for row, block, offset in ((3, 4, 0), (0, 4, 15), (4, 80, 9)):
            expected[block, :, offset] = through_four_bits(rows[row])
        assert torch.equal(new, expected)
    assert not torch.equal(before.keys, before.values)


def test_a_page_that_nobody_wrote_is_zeros() -> None:
    pages, _ = packed_pages(2).window(int32(5)[None], int32(1))
    assert not pages.keys.any()
    assert not pages.values.any()


@pytest.mark.parametrize("head_dim", [32, 64, 80, 96, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bytes_are_those_that_a_budget_counts(head_dim: int, dtype: torch.dtype) -> None:
    packed = PackedPages(KvShape(1, 2, head_dim, dtype), TierCapacity(5, 16), CPU)
    assert packed.nbytes == 2 * packed_bytes((5, 2, 16, head_dim), even_group(head_dim), dtype.itemsize)
    if dtype.itemsize == 2:
        assert packed.nbytes < 0.36 * 2 * 5 * 2 * 16 * head_dim * 2


def test_rows_are_converted_to_the_pages_dtype() -> None:
    packed = packed_pages(2, torch.bfloat16)
    rows = torch.randn(2, 3, 2, HEAD_DIM, generator=torch.Generator().manual_seed(2))
    packed.append(rows[0], rows[1], Places(int32(0, 0, 0), int32(0, 1, 2)))
    pages, _ = packed.window(int32(0)[None], int32(3))
    assert pages.keys.dtype == torch.bfloat16
    assert torch.equal(pages.keys[0, :, :3].transpose(0, 1), through_four_bits(rows[0].bfloat16()))


def test_layers_that_take_turns_share_a_workspace() -> None:
    workspace = Workspace()
    packed, values = filled(workspace=workspace)
    bytes_of_a_page = 2 * values[0, 0].nbytes
    first, _ = packed.window(int32(1, 2, 3)[None], int32(3 * PAGE_TOKENS))
    assert workspace.nbytes == 3 * bytes_of_a_page
    second, _ = filled(workspace=workspace)[0].window(int32(8)[None], int32(1))
    assert second.keys.data_ptr() == first.keys.data_ptr()
    assert torch.equal(second.keys[0], through_four_bits(values[0, 8]))
    assert workspace.nbytes == 3 * bytes_of_a_page
    packed.window(int32(*range(9))[None], int32(9 * PAGE_TOKENS))
    assert workspace.nbytes == 9 * bytes_of_a_page


def test_windows_without_a_workspace_are_their_own() -> None:
    packed, values = filled()
    first, _ = packed.window(int32(1)[None], int32(1))
    second, _ = packed.window(int32(2)[None], int32(1))
    assert torch.equal(first.keys[0], through_four_bits(values[0, 1]))
    assert torch.equal(second.keys[0], through_four_bits(values[0, 2]))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16])
def test_a_device_holds_what_the_host_holds(dtype: torch.dtype) -> None:
    host, values = filled(dtype)
    device = torch.device("cuda")
    there = PackedPages(KvShape(1, 2, HEAD_DIM, dtype), TierCapacity(BLOCKS, PAGE_TOKENS), device)
    places = every_place(BLOCKS)
    on_device = Places(places.page_ids.to(device), places.offsets.to(device))
    there.append(tokens(values[0]).to(device), tokens(values[1]).to(device), on_device)
    tables, contexts = torch.tensor([[7, 3, 90], [3, 50, 60]], dtype=torch.int32), int32(40, 17)
    here, expected = host.window(tables, contexts)
    pages, renumbered = there.window(tables.to(device), contexts.to(device))
    assert torch.equal(renumbered.cpu(), expected)
    for own, theirs in ((pages.keys, here.keys), (pages.values, here.values)):
        off = (own.cpu().float() - theirs.float()).abs() > 1e-2  # a tie may round to the other level
        assert off.float().mean() < 1e-3
