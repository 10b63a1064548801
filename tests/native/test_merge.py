"""Merging attentions over parts of a context gives the attention over the whole."""

import dataclasses

import pytest
import torch

from engines.apex import attention
from tests.native import reference

every_isa = pytest.mark.parametrize("isa", attention.available_isas())


def part(batch: reference.Batch, first_page: int, tokens: int) -> reference.Batch:
    rows = batch.query.shape[0]
    return dataclasses.replace(
        batch,
        page_table=batch.page_table[:, first_page:],
        context_lens=torch.full((rows,), tokens, dtype=torch.int32),
    )


@every_isa
@pytest.mark.parametrize("head_dim", [40, 128])
def test_two_parts_make_the_whole(isa: str, head_dim: int) -> None:
    batch = reference.random_batch((80, 80), q_heads=4, kv_heads=2, head_dim=head_dim, page_tokens=16)
    out = torch.empty_like(batch.query)
    lse = torch.empty(batch.query.shape[:2])
    with reference.isa(isa):
        attention.merge_partials(*part(batch, 0, 48).attend(), *part(batch, 3, 32).attend(), out, lse)
    expected, expected_lse = reference.attend(batch)
    assert reference.relative_error(out, expected) <= 1e-6
    torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-6, atol=1e-6)


def test_an_empty_part_changes_nothing() -> None:
    out, lse = reference.random_batch((20,)).attend()
    nothing, empty = torch.randn_like(out), torch.full_like(lse, -torch.inf)
    merged, merged_lse = torch.empty_like(out), torch.empty_like(lse)
    attention.merge_partials(out, lse, nothing, empty, merged, merged_lse)
    assert torch.equal(merged, out)
    assert torch.equal(merged_lse, lse)
    attention.merge_partials(nothing, empty, out, lse, merged, merged_lse)
    assert torch.equal(merged, out)
    attention.merge_partials(nothing, empty, nothing, empty, merged, merged_lse)
    assert not merged.any()
    assert torch.equal(merged_lse, empty)


def test_the_result_may_replace_a_part() -> None:
    batch = reference.random_batch((64,), page_tokens=16)
    first, second = part(batch, 0, 32).attend(), part(batch, 2, 32).attend()
    expected = torch.empty_like(first[0])
    attention.merge_partials(*first, *second, expected)
    attention.merge_partials(*first, *second, *first)
    assert torch.equal(first[0], expected)


def test_parts_far_apart_do_not_overflow() -> None:
    one, two = torch.ones(1, 1, 64), torch.full((1, 1, 64), 2.0)
    out, lse = torch.empty(1, 1, 64), torch.empty(1, 1)
    attention.merge_partials(one, torch.tensor([[500.0]]), two, torch.tensor([[-500.0]]), out, lse)
    assert torch.equal(out, one)
    assert lse.item() == 500.0


@every_isa
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_rounds_once(isa: str, dtype: torch.dtype) -> None:
    one, two = torch.randn(3, 2, 80).to(dtype), torch.randn(3, 2, 80).to(dtype)
    lse = torch.zeros(3, 2)
    out = torch.empty_like(one)
    with reference.isa(isa):
        attention.merge_partials(one, lse, two, lse, out)
    assert torch.equal(out, ((one.float() + two.float()) / 2).to(dtype))
