"""Decode attention in float64 over explicit tokens, and random paged batches to compare with it.

The reference reads the values as stored, so that rounding of the storage type is not counted as an error of the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engines.apex import attention

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


isa = attention.using_isa


@dataclass(frozen=True, slots=True)
class Batch:
    """Arguments of one call; pages are scattered over the store, and the pages nobody owns hold NaN."""

    query: torch.Tensor  # [rows, q_heads, head_dim]
    key_pages: torch.Tensor  # [num_pages, kv_heads, page_tokens, head_dim]
    value_pages: torch.Tensor
    page_table: torch.Tensor  # [rows, max_pages] int32
    context_lens: torch.Tensor  # [rows] int32

    @property
    def scale(self) -> float:
        return float(self.query.shape[2] ** -0.5)

    def attend(self, pool: attention.Pool | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Output [rows, q_heads, head_dim] and log-sum-exp [rows, q_heads] of the kernel, both float32."""
        out = torch.full(self.query.shape, float("nan"))
        lse = torch.full(self.query.shape[:2], float("nan"))
        attention.decode_attention(
            self.query,
            self.key_pages,
            self.value_pages,
            self.page_table,
            self.context_lens,
            out,
            self.scale,
            pool,
            lse,
        )
        return out, lse


def tokens_of(pages: torch.Tensor, table: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` tokens of a sequence: [kv_heads, count, head_dim]."""
    return pages[table.long()].permute(1, 0, 2, 3).flatten(1, 2)[:, :count]


def attend(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `Batch.attend`, in float64 and one row after the other."""
    group = batch.query.shape[1] // batch.key_pages.shape[1]
    outputs, sums = [], []
    for row, context in enumerate(batch.context_lens.tolist()):
        pages = batch.page_table[row, : -(-context // batch.key_pages.shape[2])]
        keys = tokens_of(batch.key_pages, pages, context).double().repeat_interleave(group, 0)
        values = tokens_of(batch.value_pages, pages, context).double().repeat_interleave(group, 0)
        scores = torch.einsum("hd,htd->ht", batch.query[row].double(), keys) * batch.scale
        outputs.append(torch.einsum("ht,htd->hd", scores.softmax(-1), values))
        sums.append(scores.logsumexp(-1))
    return torch.stack(outputs), torch.stack(sums)


def random_batch(
    contexts: Sequence[int],
    *,
    q_heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    page_tokens: int = 16,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Batch:
    """Rows with the given context lengths; page ids are shuffled, and unused columns of the table are out of range."""
    generator = torch.Generator().manual_seed(seed)
    needed = [-(-context // page_tokens) for context in contexts]
    num_pages = sum(needed) + 3
    shape = (num_pages, kv_heads, page_tokens, head_dim)
    pages = [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]
    order = torch.randperm(num_pages, generator=generator).to(torch.int32)
    table = torch.full((len(contexts), max(needed) + 1), -7, dtype=torch.int32)
    first = 0
    for row, count in enumerate(needed):
        table[row, :count] = order[first : first + count]
        first += count
    for store in pages:
        store[order[first:].long()] = float("nan")
        for row, (context, count) in enumerate(zip(contexts, needed, strict=True)):
            store[table[row, count - 1].long(), :, context - (count - 1) * page_tokens :] = float("nan")
    query = torch.randn((len(contexts), q_heads, head_dim), generator=generator)
    return Batch(query, pages[0], pages[1], table, torch.tensor(contexts, dtype=torch.int32))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest error of any row [rows, heads, head_dim], relative to the length of that row."""
    difference = (actual.double() - expected).norm(dim=(1, 2)) / expected.norm(dim=(1, 2))
    return float(difference.max())
