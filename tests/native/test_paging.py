"""Tokens into pages, between stores of different page sizes and dtypes, and back: none lost, none misplaced."""

import pytest
import torch

from engines.apex import attention
from tests.native import reference

every_isa = pytest.mark.parametrize("isa", attention.available_isas())

SPECIAL = (0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, 1e30, 6e-8, 2.9e-8, 3e-5, -6.1e-5, float("inf"), float("nan"))


def ids(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def same(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal bits, except that any NaN equals any other."""
    nan = expected.isnan()
    return torch.equal(actual.isnan(), nan) and torch.equal(actual[~nan], expected[~nan])


@every_isa
@pytest.mark.parametrize("stored", reference.FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("given", reference.FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [64, 13])
def test_append_writes_one_token_per_row(isa: str, stored: torch.dtype, given: torch.dtype, head_dim: int) -> None:
    key = torch.randn(3, 2, head_dim).to(given)
    value = torch.randn(3, 2, head_dim).to(given)
    stores = [torch.zeros(5, 2, 16, head_dim, dtype=stored) for _ in range(2)]
    with reference.isa(isa):
        attention.append_kv(key, value, stores[0], stores[1], ids(4, 0, 2), ids(15, 0, 7))
    for store, rows in zip(stores, (key, value), strict=True):
        expected = torch.zeros_like(store)
        for row, (page, offset) in enumerate(((4, 15), (0, 0), (2, 7))):
            expected[page, :, offset] = rows[row].to(stored)
        assert torch.equal(store, expected)


@every_isa
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=str)
def test_conversion_rounds_as_torch_does(isa: str, stored: torch.dtype) -> None:
    """To nearest even, overflow to infinity, denormals kept, NaN stays NaN."""
    spread = torch.randn(4000) * torch.logspace(-9, 6, 4000)
    halfway = (torch.arange(1000, dtype=torch.int32) * 0x1001000 + 0x38001000).view(torch.float32)
    numbers = torch.cat([torch.tensor(SPECIAL), spread, halfway, -halfway])[None, None]
    numbers = numbers[:, :, : numbers.shape[2] // 16 * 16 - 3].clone().reshape(1, 1, -1)
    for first in range(0, numbers.shape[2], 4000):
        piece = numbers[:, :, first : first + 4000]
        pages = torch.zeros(1, 1, 1, piece.shape[2], dtype=stored)
        with reference.isa(isa):
            attention.append_kv(piece, piece, pages, pages.clone(), ids(0), ids(0))
            back = torch.zeros(1, 1, piece.shape[2])
            attention.gather_blocks(pages, ids(0), back)
        assert same(pages.flatten(), piece.flatten().to(stored))
        assert same(back.flatten(), pages.flatten().float())


def test_append_accepts_slices_of_a_projection() -> None:
    projection = torch.randn(2, 3 * 64)
    key, value = projection[:, 64:128].view(2, 1, 64), projection[:, 128:].view(2, 1, 64)
    stores = [torch.zeros(2, 1, 4, 64) for _ in range(2)]
    attention.append_kv(key, value, stores[0], stores[1], ids(0, 1), ids(3, 2))
    assert torch.equal(stores[0][1, 0, 2], key[1, 0])
    assert torch.equal(stores[1][0, 0, 3], value[0, 0])


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 100, 255, 256, 257, 300])
@pytest.mark.parametrize("page_tokens", [1, 16, 64, 256])
def test_blocks_to_host_pages_and_back(tokens: int, page_tokens: int) -> None:
    blocks = torch.randn(25, 3, 16, 40).half()
    table = torch.randperm(25)[:20].to(torch.int32)
    pages = torch.full((310, 3, page_tokens, 40), 7.0, dtype=torch.float16)
    page_table = torch.randperm(310)[: -(-tokens // page_tokens)].to(torch.int32)
    attention.copy_tokens(blocks, table, pages, page_table, tokens)
    expected = reference.tokens_of(blocks, table, tokens)
    assert torch.equal(reference.tokens_of(pages, page_table, tokens), expected)
    assert int((pages != 7).any(-1).sum()) == 3 * tokens

    returned = torch.zeros_like(blocks)
    attention.copy_tokens(pages, page_table, returned, table, tokens)
    assert torch.equal(reference.tokens_of(returned, table, tokens), expected)
    assert int(returned.any(-1).sum()) == 3 * tokens


def test_a_range_of_tokens_lands_at_its_place() -> None:
    source = torch.randn(4, 2, 16, 8)
    target = torch.zeros(2, 2, 64, 8)
    attention.copy_tokens(source, ids(3, 0, 2), target, ids(1, 0), 30, src_start=10, dst_start=50)
    moved = reference.tokens_of(target, ids(1, 0), 128)
    assert torch.equal(moved[:, 50:80], reference.tokens_of(source, ids(3, 0, 2), 48)[:, 10:40])
    assert int(moved.any(-1).sum()) == 2 * 30


@every_isa
def test_a_copy_may_change_the_dtype(isa: str) -> None:
    source = torch.randn(2, 2, 16, 24)
    target = torch.zeros(1, 2, 32, 24, dtype=torch.bfloat16)
    with reference.isa(isa):
        attention.copy_tokens(source, ids(1, 0), target, ids(0), 20)
    expected = reference.tokens_of(source, ids(1, 0), 20).to(torch.bfloat16)
    assert torch.equal(target[0, :, :20], expected)


def test_gather_and_scatter_are_inverse() -> None:
    pages = torch.randn(6, 2, 16, 32).to(torch.bfloat16)
    table = ids(5, 1, 3)
    packed = torch.zeros(2, 40, 32, dtype=torch.bfloat16)
    attention.gather_blocks(pages, table, packed)
    assert torch.equal(packed, reference.tokens_of(pages, table, 40))
    scattered = torch.zeros_like(pages)
    attention.scatter_blocks(packed, scattered, table)
    assert torch.equal(reference.tokens_of(scattered, table, 40), packed)


def test_no_tokens_are_no_work() -> None:
    pages = torch.zeros(1, 1, 16, 8)
    attention.copy_tokens(pages, ids(), pages, ids(), 0)
    attention.append_kv(torch.zeros(0, 1, 8), torch.zeros(0, 1, 8), pages, pages.clone(), ids(), ids())
    assert not pages.any()
