"""The decode kernels against float64: every instruction set of this machine, every storage type, awkward shapes."""

import dataclasses

import pytest
import torch

from engines.apex import _cpu, attention
from tests.native import reference

# Context lengths around pages of 16, tiles of 32 and chunks of 256 tokens.
EDGES = (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 511, 513, 770)

# (query heads, K/V heads): multi-head, grouped 4 and 8 to one, groups of 3, 5, 7 and 31, one head.
HEADS = ((31, 31), (32, 8), (8, 1), (6, 2), (5, 1), (14, 2), (31, 1), (1, 1))

TOLERANCE = 1e-6  # arithmetic is float32 whatever the storage type

every_isa = pytest.mark.parametrize("isa", attention.available_isas())
every_dtype = pytest.mark.parametrize("dtype", reference.FLOAT_DTYPES, ids=str)


def check(batch: reference.Batch, pool: attention.Pool | None = None) -> None:
    out, lse = batch.attend(pool)
    expected_out, expected_lse = reference.attend(batch)
    assert reference.relative_error(out, expected_out) <= TOLERANCE
    torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-6, atol=2e-6)


@every_isa
@every_dtype
@pytest.mark.parametrize("page_tokens", [1, 16, 64, 256])
def test_context_lengths_around_every_boundary(isa: str, dtype: torch.dtype, page_tokens: int) -> None:
    with reference.isa(isa):
        check(reference.random_batch(EDGES, page_tokens=page_tokens, dtype=dtype))


@every_isa
@every_dtype
@pytest.mark.parametrize("head_dim", [1, 7, 32, 40, 64, 72, 80, 96, 128, 200, 256])
def test_head_dims(isa: str, dtype: torch.dtype, head_dim: int) -> None:
    with reference.isa(isa):
        check(reference.random_batch((1, 17, 290), q_heads=7, kv_heads=1, head_dim=head_dim, dtype=dtype))


@every_isa
@pytest.mark.parametrize("heads", HEADS, ids=lambda heads: f"{heads[0]}:{heads[1]}")
@pytest.mark.parametrize("head_dim", [80, 128])
def test_head_groups(isa: str, heads: tuple[int, int], head_dim: int) -> None:
    with reference.isa(isa):
        batch = reference.random_batch(
            (5, 100, 300), q_heads=heads[0], kv_heads=heads[1], head_dim=head_dim, page_tokens=64, dtype=torch.float16
        )
        check(batch)


@every_isa
@pytest.mark.parametrize("page_tokens", [3, 24, 100])
def test_page_sizes_that_fit_no_tile(isa: str, page_tokens: int) -> None:
    with reference.isa(isa):
        check(reference.random_batch(EDGES, page_tokens=page_tokens, q_heads=4, kv_heads=1))


@every_isa
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (9, 1)])
def test_prefetching_changes_no_bit(isa: str, mode: str, heads: tuple[int, int]) -> None:
    batch = reference.random_batch((1, 33, 400), q_heads=heads[0], kv_heads=heads[1], head_dim=128)
    with reference.isa(isa):
        expected, _ = batch.attend()
        attention.set_prefetch(mode)
        try:
            out, _ = batch.attend()
        finally:
            attention.set_prefetch("auto")
    assert torch.equal(out, expected)


@every_isa
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_no_bit(isa: str, threads: int) -> None:
    batch = reference.random_batch(EDGES, q_heads=8, kv_heads=2, dtype=torch.bfloat16)
    with reference.isa(isa), attention.Pool(threads, spin_us=0) as pool:
        expected, expected_lse = batch.attend()
        for _ in range(5):
            out, lse = batch.attend(pool)
            assert torch.equal(out, expected)
            assert torch.equal(lse, expected_lse)


@every_isa
def test_neither_the_page_size_nor_the_batch_changes_a_bit(isa: str) -> None:
    small = reference.random_batch((600, 300, 40), q_heads=8, kv_heads=2, page_tokens=16, dtype=torch.float16)
    with reference.isa(isa):
        expected, _ = small.attend()
        for page_tokens in (1, 24, 256):
            assert torch.equal(repaged(small, page_tokens).attend()[0], expected)
        for row in range(3):
            assert torch.equal(one_row(small, row).attend()[0][0], expected[row])


def repaged(batch: reference.Batch, page_tokens: int) -> reference.Batch:
    """The same sequences in another page size."""
    longest = int(batch.context_lens.max())
    columns = -(-longest // page_tokens)
    rows = batch.query.shape[0]
    _, kv_heads, old_tokens, head_dim = batch.key_pages.shape
    stores = []
    for pages in (batch.key_pages, batch.value_pages):
        store = torch.zeros((rows * columns, kv_heads, page_tokens, head_dim), dtype=pages.dtype)
        for row, context in enumerate(batch.context_lens.tolist()):
            table = batch.page_table[row, : -(-context // old_tokens)]
            tokens = reference.tokens_of(pages, table, context)
            padding = torch.zeros((kv_heads, columns * page_tokens - context, head_dim), dtype=pages.dtype)
            sequence = torch.cat([tokens, padding], 1).reshape(kv_heads, columns, page_tokens, head_dim)
            store[row * columns : (row + 1) * columns] = sequence.transpose(0, 1)
        stores.append(store)
    table = torch.arange(rows * columns, dtype=torch.int32).reshape(rows, columns)
    return reference.Batch(batch.query, stores[0], stores[1], table, batch.context_lens)


def one_row(batch: reference.Batch, row: int) -> reference.Batch:
    return dataclasses.replace(
        batch,
        query=batch.query[row : row + 1],
        page_table=batch.page_table[row : row + 1],
        context_lens=batch.context_lens[row : row + 1],
    )


@every_isa
@every_dtype
def test_query_and_output_may_have_any_float_type(isa: str, dtype: torch.dtype) -> None:
    batch = reference.random_batch((40, 300), dtype=torch.float16)
    batch = dataclasses.replace(batch, query=batch.query.to(dtype))
    out = torch.empty(batch.query.shape, dtype=dtype)
    with reference.isa(isa):
        exact = batch.attend()[0]
        attention.decode_attention(
            batch.query, batch.key_pages, batch.value_pages, batch.page_table, batch.context_lens, out, batch.scale
        )
    assert torch.equal(out, exact.to(dtype))
    assert reference.relative_error(exact, reference.attend(batch)[0]) <= TOLERANCE


@every_isa
def test_views_with_strides(isa: str) -> None:
    """A layer of a store of all layers, queries inside a fused projection, outputs and tables inside larger tensors."""
    plain = reference.random_batch((50, 70), q_heads=4, kv_heads=2, head_dim=64)
    layers = torch.full((plain.key_pages.shape[0], 3, 2, *plain.key_pages.shape[1:]), float("nan"))
    layers[:, 1, 0], layers[:, 1, 1] = plain.key_pages, plain.value_pages
    fused = torch.full((2, 4 + 2 + 2, 64), float("nan"))
    fused[:, :4] = plain.query
    table = torch.full((2, 40), -1, dtype=torch.int32)
    table[:, 3 : 3 + plain.page_table.shape[1]] = plain.page_table
    outputs = torch.zeros((2, 4, 2, 64))
    sums = torch.zeros((2, 6))
    with reference.isa(isa):
        attention.decode_attention(
            fused[:, :4],
            layers[:, 1, 0],
            layers[:, 1, 1],
            table[:, 3:],
            plain.context_lens,
            outputs[:, :, 1],
            plain.scale,
            lse=sums[:, :4],
        )
        expected, expected_sums = plain.attend()
    assert torch.equal(outputs[:, :, 1], expected)
    assert torch.equal(sums[:, :4], expected_sums)
    assert not outputs[:, :, 0].any()
    assert not sums[:, 4:].any()


@every_isa
def test_large_scores_neither_overflow_nor_lose_the_small_ones(isa: str) -> None:
    batch = reference.random_batch((600,), q_heads=2, kv_heads=1, head_dim=64)
    batch = dataclasses.replace(batch, query=batch.query * 40)
    with reference.isa(isa):
        out, lse = batch.attend()
    expected, expected_lse = reference.attend(batch)
    assert reference.relative_error(out, expected) <= 5e-5  # scores of some 300 carry that much rounding into exp
    torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-6, atol=0)


@every_isa
def test_rising_maxima_rescale_the_sums(isa: str) -> None:
    """Every tile has a larger score than all before it."""
    batch = reference.random_batch((500,), q_heads=1, kv_heads=1, head_dim=64, page_tokens=512)
    rising = torch.linspace(-1, 1, 500)[:, None].expand(500, 64)
    batch.key_pages[batch.page_table[0, 0].long(), 0, :500] = rising
    batch = dataclasses.replace(batch, query=torch.ones(1, 1, 64))
    with reference.isa(isa):
        check(batch)


@every_isa
def test_equal_scores_give_the_mean(isa: str) -> None:
    batch = reference.random_batch((300,), q_heads=1, kv_heads=1, head_dim=64)
    out = torch.empty(1, 1, 64)
    lse = torch.empty(1, 1)
    tables = (batch.page_table, batch.context_lens)
    with reference.isa(isa):
        attention.decode_attention(batch.query, batch.key_pages, batch.value_pages, *tables, out, 0.0, lse=lse)
    values = reference.tokens_of(batch.value_pages, batch.page_table[0, :19], 300)
    torch.testing.assert_close(out[0, 0], values[0].mean(0), rtol=1e-5, atol=1e-6)
    assert lse.item() == pytest.approx(torch.tensor(300.0).log().item(), rel=1e-6)


def test_no_rows_are_no_work() -> None:
    batch = one_row(reference.random_batch((5,)), 0)
    empty = dataclasses.replace(
        batch, query=batch.query[:0], page_table=batch.page_table[:0], context_lens=batch.context_lens[:0]
    )
    assert empty.attend()[0].shape == (0, 4, 64)
    with attention.Pool(2, spin_us=0) as pool:
        assert empty.attend(pool)[0].shape == (0, 4, 64)


def test_numpy_arrays_are_as_good_as_tensors() -> None:
    batch = reference.random_batch((5, 40), dtype=torch.float16)
    out = torch.empty(batch.query.shape).numpy()
    _cpu.decode_attention(
        batch.query.numpy(),
        batch.key_pages.numpy(),
        batch.value_pages.numpy(),
        batch.page_table.numpy(),
        batch.context_lens.numpy(),
        out,
        batch.scale,
    )
    assert torch.equal(torch.from_numpy(out), batch.attend()[0])
