"""Copies of a request's KV between tiers, whose pages differ in size. Real bytes over the real (or paced) link."""

import torch

from engines.apex import attention as native
from engines.backends.buffers import PagedKv
from engines.core.types import Move, Tier


class KvMover:
    def __init__(self, stores: dict[Tier, PagedKv]) -> None:
        self._stores = stores

    def copy(self, move: Move) -> None:
        """All layers, keys and values, `move.tokens` tokens."""
        source, target = self._stores[move.source], self._stores[move.target]
        if source.keys.device.type == target.keys.device.type == "cpu":
            self._copy_on_host(move, source, target)
            return
        for pages, into in ((source.keys, target.keys), (source.values, target.values)):
            _scatter(_gather(pages, move.source_blocks, move.tokens), into, move.target_blocks, target.page_tokens)

    def _copy_on_host(self, move: Move, source: PagedKv, target: PagedKv) -> None:
        source_table = torch.tensor(move.source_blocks, dtype=torch.int32)
        target_table = torch.tensor(move.target_blocks, dtype=torch.int32)
        for layer in range(source.keys.shape[0]):
            for pages, into in ((source.keys, target.keys), (source.values, target.values)):
                native.copy_tokens(pages[layer], source_table, into[layer], target_table, move.tokens)


def _gather(pages: torch.Tensor, blocks: tuple[int, ...], tokens: int) -> torch.Tensor:
    """[layers, blocks, kv_heads, page_tokens, head_dim] -> [layers, kv_heads, tokens, head_dim]."""
    picked = pages[:, torch.tensor(blocks, device=pages.device)]
    return picked.transpose(1, 2).flatten(2, 3)[:, :, :tokens]


def _scatter(tokens: torch.Tensor, pages: torch.Tensor, blocks: tuple[int, ...], page_tokens: int) -> None:
    for index, block in enumerate(blocks):
        part = tokens[:, :, index * page_tokens : (index + 1) * page_tokens]
        pages[:, block, :, : part.shape[2]] = part.to(pages.device)
