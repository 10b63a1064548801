"""Token ids: a function of seed and request, in any order, within the vocabulary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads import Request, WorkloadError, prompt_token_ids


def request(request_id: int = 0, prompt_tokens: int = 16) -> Request:
    return Request(request_id, 0.0, prompt_tokens, 1)


@given(
    request_id=st.integers(0, 10**6),
    length=st.integers(1, 200),
    vocab_size=st.integers(4, 200_000),
    seed=st.integers(0, 2**63),
)
def test_ids_are_ordinary_tokens_of_the_vocabulary(request_id: int, length: int, vocab_size: int, seed: int) -> None:
    ids = prompt_token_ids(request(request_id, length), vocab_size, seed)
    assert len(ids) == length
    assert all(type(token_id) is int and 3 <= token_id < vocab_size for token_id in ids)


def test_order_of_asking_does_not_matter() -> None:
    forward = [prompt_token_ids(request(number), 32_000, 7) for number in range(5)]
    backward = [prompt_token_ids(request(number), 32_000, 7) for number in reversed(range(5))]
    assert forward == backward[::-1]


def test_requests_and_seeds_have_prompts_of_their_own() -> None:
    prompts = [tuple(prompt_token_ids(request(number), 32_000, seed)) for number in range(5) for seed in range(5)]
    assert len(set(prompts)) == len(prompts)


def test_every_id_of_a_small_vocabulary_occurs() -> None:
    assert set(prompt_token_ids(request(prompt_tokens=500), 10, 0)) == set(range(3, 10))


def test_a_conversation_is_not_a_request_of_the_same_number() -> None:
    turn = Request(0, 0.0, 16, 1, session=0)
    assert prompt_token_ids(turn, 32_000, 0) != prompt_token_ids(request(0), 32_000, 0)


@pytest.mark.parametrize(("vocab_size", "seed"), [(3, 0), (0, 0), (-5, 0), (100, -1)])
def test_impossible_vocabulary_or_seed(vocab_size: int, seed: int) -> None:
    with pytest.raises(WorkloadError):
        prompt_token_ids(request(), vocab_size, seed)
