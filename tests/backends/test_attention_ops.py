"""The torch ops, written for CUDA, and the C++ kernels do the same to the same pages; both equal plain attention."""

import pytest
import torch

from engines.backends.attention_ops import NativeOps, PagedOps, TorchOps
from engines.backends.rows import SHORT_CHUNK
from tests.backends.paged import Heads, scene

OPS: tuple[PagedOps, ...] = (NativeOps(), TorchOps())
HEADS = {"multi-head": Heads(4, 4), "grouped": Heads(8, 2), "multi-query": Heads(4, 1)}
BATCHES: dict[str, tuple[tuple[int, ...], tuple[tuple[int, int], ...]]] = {
    "one decode": ((0,), ()),
    "decodes around page ends": ((0, 14, 15, 16, 17, 31, 32, 200), ()),
    "a short chunk at the start": ((), ((0, 7),)),
    "a short chunk later": ((), ((20, 9),)),
    "one token of a prompt": ((), ((33, 1),)),
    "the longest short chunk": ((), ((16, SHORT_CHUNK), (0, SHORT_CHUNK))),
    "the shortest long chunk": ((), ((5, SHORT_CHUNK + 1), (0, SHORT_CHUNK + 1))),
    "a long chunk at the start": ((), ((0, 100),)),
    "a long chunk later": ((), ((48, 80),)),
    "everything at once": ((3, 40, 111), ((0, 5), (0, 70), (17, 8), (30, 64), (16, 16))),
}


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_both_equal_plain_attention(heads: Heads, batch: tuple[tuple[int, ...], tuple[tuple[int, int], ...]]) -> None:
    shown = scene(heads, *batch)
    expected = shown.expected()
    outputs, stores = zip(*(shown.run(ops) for ops in OPS), strict=True)
    for out in outputs:
        assert (out.double() - expected).abs().max() < 1e-5
    assert torch.equal(stores[0].keys, stores[1].keys)
    assert torch.equal(stores[0].values, stores[1].values)


@pytest.mark.parametrize("ops", OPS, ids=lambda ops: type(ops).__name__)
def test_append_writes_its_rows_and_nothing_else(ops: PagedOps) -> None:
    shown = scene(Heads(4, 2), (5, 40), ((0, 20),))
    _, pages = shown.run(ops)
    assert shown.rows.accel is not None
    blocks, offsets = shown.rows.accel.page_ids.long(), shown.rows.accel.offsets.long()
    for before, after, fresh in (
        (shown.store[0], pages.keys, shown.fresh.key),
        (shown.store[1], pages.values, shown.fresh.value),
    ):
        assert torch.equal(after[blocks, :, offsets], fresh)
        untouched = after.clone()
        untouched[blocks, :, offsets] = before[blocks, :, offsets]
        assert torch.equal(untouched, before)


def test_a_token_too_many_is_seen() -> None:
    """The proof of the comparison: unwritten places of a page hold numbers that no attention could hide."""
    shown = scene(Heads(4, 4), (20,), ())
    shown.rows.decode_contexts.add_(1)
    out, _ = shown.run(TorchOps())
    assert (out.double() - shown.expected()).abs().max() > 1
