"""Packed requests are the requests that went in."""

import pytest

from workloads import Request
from workloads.packed import PackedRequests

SOME = tuple(Request(number, number * 0.5, 10 + number, 7, number % 2, number // 2, 0.25) for number in range(6))


def test_what_comes_out_is_what_went_in() -> None:
    packed = PackedRequests(iter(SOME))
    assert tuple(packed) == SOME
    assert len(packed) == 6
    assert (packed[2], packed[-1], packed[1:4]) == (SOME[2], SOME[-1], SOME[1:4])
    assert packed.column("prompt_tokens").tolist() == [request.prompt_tokens for request in SOME]
    assert packed.column("arrival_s").tolist() == [request.arrival_s for request in SOME]
    with pytest.raises(IndexError):
        packed[6]


def test_they_are_equal_to_what_they_are_made_of() -> None:
    packed = PackedRequests(SOME)
    assert packed == PackedRequests(SOME)
    assert packed == SOME
    assert packed != SOME[:5]
    assert packed != (*SOME[:5], Request(9, 2.5, 15, 7))
    assert hash(packed) == hash(PackedRequests(SOME))
