"""KV copied between tiers whose pages differ in size: nothing lost, nothing else touched, on either path."""

import pytest
import torch

from engines.backends.buffers import KvShape, PagedKv
from engines.backends.moves import KvMover, _gather, _scatter
from engines.core.types import Move, Tier, TierCapacity

SHAPE = KvShape(layers=3, kv_heads=2, head_dim=32, dtype=torch.float32)
ACCEL, HOST = TierCapacity(48, 16), TierCapacity(4, 256)
CPU = torch.device("cpu")


def stores() -> dict[Tier, PagedKv]:
    kept = {Tier.ACCEL: PagedKv(SHAPE, ACCEL, CPU), Tier.HOST: PagedKv(SHAPE, HOST, CPU)}
    draw = torch.Generator().manual_seed(5)
    for store in kept.values():
        for pages in (store.keys, store.values):
            pages.copy_(torch.randn(pages.shape, generator=draw))
    return kept


def blocks(tokens: int, capacity: TierCapacity, seed: int) -> tuple[int, ...]:
    order = torch.randperm(capacity.blocks, generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(order[: -(-tokens // capacity.page_tokens)])


def sequence(pages: torch.Tensor, table: tuple[int, ...], tokens: int) -> torch.Tensor:
    """Token by token: [tokens, layers, kv_heads, head_dim]."""
    size = pages.shape[3]
    return torch.stack([pages[:, table[token // size], :, token % size] for token in range(tokens)])


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 255, 256, 257, 600, 768])
def test_there_and_back_again(tokens: int) -> None:
    kept = stores()
    mover = KvMover(kept)
    accel, other, host = blocks(tokens, ACCEL, 1), blocks(tokens, ACCEL, 2), blocks(tokens, HOST, 3)
    before = [sequence(pages, accel, tokens) for pages in (kept[Tier.ACCEL].keys, kept[Tier.ACCEL].values)]
    mover.copy(Move(1, Tier.ACCEL, accel, Tier.HOST, host, tokens))
    parked = [sequence(pages, host, tokens) for pages in (kept[Tier.HOST].keys, kept[Tier.HOST].values)]
    mover.copy(Move(1, Tier.HOST, host, Tier.ACCEL, other, tokens))
    after = [sequence(pages, other, tokens) for pages in (kept[Tier.ACCEL].keys, kept[Tier.ACCEL].values)]
    for first, second, third in zip(before, parked, after, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


@pytest.mark.parametrize("tokens", [1, 16, 17, 256, 300])
@pytest.mark.parametrize("source", [Tier.ACCEL, Tier.HOST])
def test_the_path_for_a_gpu_does_the_same(tokens: int, source: Tier) -> None:
    """It is written in torch for tensors on different devices, and chosen by device; here it is called by name."""
    native, generic = stores(), stores()
    target = Tier.HOST if source is Tier.ACCEL else Tier.ACCEL
    tables = {Tier.ACCEL: blocks(tokens, ACCEL, 1), Tier.HOST: blocks(tokens, HOST, 3)}
    KvMover(native).copy(Move(1, source, tables[source], target, tables[target], tokens))
    for pages, into in (
        (generic[source].keys, generic[target].keys),
        (generic[source].values, generic[target].values),
    ):
        _scatter(_gather(pages, tables[source], tokens), into, tables[target], generic[target].page_tokens)
    for tier in (Tier.ACCEL, Tier.HOST):
        assert torch.equal(native[tier].keys, generic[tier].keys), "the copy, and every page that it must not touch"
        assert torch.equal(native[tier].values, generic[tier].values)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 16, 17, 256, 300])
def test_there_and_back_between_devices(tokens: int) -> None:
    cuda = torch.device("cuda")
    kept = {Tier.ACCEL: PagedKv(SHAPE, ACCEL, cuda), Tier.HOST: PagedKv(SHAPE, HOST, CPU, pin=True)}
    kept[Tier.ACCEL].keys.normal_()
    kept[Tier.ACCEL].values.normal_()
    accel, other, host = blocks(tokens, ACCEL, 1), blocks(tokens, ACCEL, 2), blocks(tokens, HOST, 3)
    before = [sequence(pages, accel, tokens) for pages in (kept[Tier.ACCEL].keys, kept[Tier.ACCEL].values)]
    mover = KvMover(kept)
    mover.copy(Move(1, Tier.ACCEL, accel, Tier.HOST, host, tokens))
    mover.copy(Move(1, Tier.HOST, host, Tier.ACCEL, other, tokens))
    after = [sequence(pages, other, tokens) for pages in (kept[Tier.ACCEL].keys, kept[Tier.ACCEL].values)]
    assert all(torch.equal(first, second) for first, second in zip(before, after, strict=True))
