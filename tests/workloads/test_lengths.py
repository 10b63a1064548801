"""Distributions of token counts: bounds, order, scale, and streams that only ever extend."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.lengths import Fixed, Jittered, Joint, LogNormal, Quantiles, scaled
from workloads.streams import Purpose, uniforms, whole_numbers

UNIFORM = np.linspace(0, 1, 1001)[:-1]


@given(length=st.integers(1, 100_000), jitter=st.floats(0, 0.99))
def test_jitter_stays_within_its_fraction(length: int, jitter: float) -> None:
    tokens = Jittered(length, jitter).tokens(UNIFORM)
    assert tokens.min() >= max(1, round(length * (1 - jitter)) - 1)
    assert tokens.max() <= round(length * (1 + jitter)) + 1


def test_jitter_is_even_on_both_sides() -> None:
    assert abs(Jittered(1000, 0.1).tokens(UNIFORM).mean() - 1000) < 1


def test_quantiles_pass_through_their_points() -> None:
    table = Quantiles.parse("0:1 50:101 100:201")
    assert table.tokens(np.array([0.0, 0.25, 0.5, 0.75])).tolist() == [1, 51, 101, 151]


@settings(deadline=None)  # the first call imports a library
@given(median=st.floats(10, 1e4), sigma=st.floats(0.05, 2))
def test_lognormal_keeps_to_its_range(median: float, sigma: float) -> None:
    tokens = LogNormal(median, sigma, low=5, high=20_000).tokens(UNIFORM)
    assert tokens.min() >= 5
    assert tokens.max() <= 20_000
    assert np.all(np.diff(tokens) >= 0)


def test_output_distribution_follows_the_band_of_the_prompt() -> None:
    joint = Joint(Quantiles.parse("0:1 100:100"), (Fixed(7), Fixed(9)), bands=(50,))
    prompts, outputs = joint.draw(1000, seed=3)
    assert set(outputs[prompts <= 50].tolist()) == {7}
    assert set(outputs[prompts > 50].tolist()) == {9}


@given(lengths=st.lists(st.integers(1, 10_000), min_size=1), scale=st.floats(1e-6, 10))
def test_scaled_lengths_are_at_least_one_token(lengths: list[int], scale: float) -> None:
    tokens = np.array(lengths, dtype=np.int64)
    shrunk = scaled(tokens, scale)
    assert shrunk.min() >= 1
    assert np.all(np.abs(shrunk - tokens * scale) <= 1)


@given(seed=st.integers(0, 2**64), short=st.integers(0, 50), more=st.integers(0, 50))
def test_a_longer_stream_begins_with_the_shorter(seed: int, short: int, more: int) -> None:
    long = uniforms(seed, Purpose.ARRIVAL, short + more)
    assert uniforms(seed, Purpose.ARRIVAL, short).tolist() == long[:short].tolist()
    assert np.all((long >= 0) & (long < 1))


def test_streams_of_different_purpose_index_and_seed_differ() -> None:
    draws = [
        tuple(whole_numbers(seed, purpose, index, 8, 0, 1000).tolist())
        for seed in (0, 1)
        for purpose in Purpose
        for index in (0, 1)
    ]
    assert len(set(draws)) == len(draws)


def test_streams_are_the_same_on_every_machine() -> None:
    """Published numbers depend on these: a change here changes every workload."""
    assert whole_numbers(0, Purpose.REQUEST_TOKENS, 0, 4, 3, 32_000).tolist() == [21915, 30041, 15898, 1412]
