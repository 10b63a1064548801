"""The KV manager alone: pairs never half-allocate, pages in flight drain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.core.errors import IntegrityError
from engines.core.kv import KVManager
from engines.core.request import Request
from engines.core.types import RequestSpec, Tier

from .worlds import capabilities


def request(request_id: int = 0) -> Request:
    return Request(RequestSpec(request_id, 10, 10), request_id)


def test_growing_beyond_the_pool_changes_nothing() -> None:
    kv = KVManager(capabilities(2))
    holder = request()
    assert not kv.can_grow(holder, 33)
    with pytest.raises(IntegrityError):
        kv.grow(holder, 33)
    assert holder.blocks == []
    assert len(kv.pools[Tier.ACCEL].free) == 2


def test_pages_in_flight_drain_until_settled() -> None:
    kv = KVManager(capabilities(2))
    holder = request()
    kv.grow(holder, 32)
    holder.in_flight = True
    kv.release(holder)
    assert kv.pools[Tier.ACCEL].draining_blocks == 2
    assert not kv.can_grow(request(1), 1)
    kv.check_integrity([])
    kv.settle(holder.request_id)
    assert kv.can_grow(request(1), 32)
    kv.check_integrity([])


def test_nothing_in_flight_moves() -> None:
    kv = KVManager(capabilities(2, host_blocks=2))
    holder = request()
    kv.grow(holder, 10)
    holder.computed = 10
    holder.in_flight = True
    assert not kv.can_move(holder, Tier.HOST)


def test_a_lost_block_is_noticed() -> None:
    kv = KVManager(capabilities(3))
    holder = request()
    kv.grow(holder, 16)
    kv.pools[Tier.ACCEL].free.take(1)
    with pytest.raises(IntegrityError, match="lost or held twice"):
        kv.check_integrity([holder])


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["grow", "release", "out", "back"])), max_size=60))
def test_blocks_are_conserved(actions: list[tuple[int, str]]) -> None:
    kv = KVManager(capabilities(12, host_blocks=4, host_page=32))
    holders = [request(index) for index in range(6)]
    for index, action in actions:
        holder = holders[index]
        if action == "grow" and kv.can_grow(holder, holder.computed + 9):
            kv.grow(holder, holder.computed + 9)
            holder.computed += 9
        elif action == "release":
            kv.release(holder)
            holder.computed, holder.tier = 0, Tier.ACCEL
        elif action in ("out", "back"):
            target = Tier.HOST if action == "out" else Tier.ACCEL
            if holder.tier is not target and kv.can_move(holder, target):
                source, into = kv.move(holder, target)
                pages = kv.pools[Tier.HOST].page_tokens
                assert len(into if action == "out" else source) == -(-holder.computed // pages)
        kv.check_integrity(holders)
