"""Sampling: greedy is argmax, and a drawn token depends on its request's seed and position alone."""

from collections import Counter

import pytest
import torch

from engines.model.errors import ModelError
from engines.model.sampler import Sampling, sample, uniform

LOGITS = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))


def test_greedy_takes_the_largest() -> None:
    assert sample(LOGITS, [Sampling()] * 6, range(6)) == LOGITS.argmax(-1).tolist()


def test_a_draw_does_not_depend_on_its_batch() -> None:
    wish = Sampling(temperature=0.9, top_k=20, top_p=0.9, seed=5)
    for position in range(50):
        [alone] = sample(LOGITS[2:3], [wish], [position])
        others = [Sampling(temperature=1.3, seed=1), Sampling(), wish, Sampling(), wish, Sampling(top_k=3)]
        batched = sample(LOGITS, others, [9, 9, position, 9, 9, 9])
        reversed_order = sample(LOGITS.flip(0), others[::-1], [9, 9, 9, position, 9, 9])
        assert batched[2] == reversed_order[3] == alone


def test_seed_and_position_each_matter() -> None:
    flat = torch.zeros(1, 1000)
    draws = {
        (seed, position): sample(flat, [Sampling(temperature=1.0, seed=seed)], [position])[0]
        for seed in range(5)
        for position in range(5)
    }
    assert len(set(draws.values())) > 20


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    wish = Sampling(temperature=1.0, seed=1)
    counts = Counter(sample(probabilities.log(), [wish], [position])[0] for position in range(4000))
    for token, share in enumerate(probabilities[0].tolist()):
        assert counts[token] / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(temperature=1.0, top_k=1), {1}),
        (Sampling(temperature=1.0, top_k=2), {1, 0}),
        (Sampling(temperature=1.0, top_p=0.4), {1}),
        (Sampling(temperature=1.0, top_p=0.6), {1, 0}),
        (Sampling(temperature=1.0, top_p=1e-9), {1}),
        (Sampling(temperature=1.0, top_k=10), {0, 1, 2, 3}),
        (Sampling(temperature=0.01), {1}),
    ],
)
def test_top_k_and_top_p_keep_the_likeliest(sampling: Sampling, allowed: set[int]) -> None:
    logits = torch.tensor([[0.3, 0.5, 0.15, 0.05]]).log()
    assert {sample(logits, [sampling], [position])[0] for position in range(300)} == allowed


def test_the_random_numbers_are_the_same_everywhere() -> None:
    assert uniform(0, 0) == uniform(0, 0)
    assert 0.0 <= min(uniform(1, n) for n in range(1000)) < 0.01 < 0.99 < max(uniform(1, n) for n in range(1000)) < 1.0


def test_no_rows_give_no_tokens() -> None:
    assert sample(LOGITS[:0], [], []) == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -0.1, "temperature must be 0"),
        ("temperature", float("nan"), "temperature must be 0"),
        ("top_k", -1, "top_k must be 0"),
        ("top_p", 0.0, "top_p must be above 0"),
        ("top_p", 1.1, "top_p must be above 0"),
    ],
)
def test_senseless_settings_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Sampling(**{field: value})  # type: ignore[arg-type]
