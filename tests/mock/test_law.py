"""The law itself, and that the serving loop reproduces it to the last digit in simulated time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.mock.law import LatencyLaw
from tests.mock.worlds import served, workload

PLAIN = LatencyLaw(ttft_s=0.1, ttft_s_per_prompt_token=0.002, tpot_s=0.01)


def test_first_token_by_the_prompt_then_a_steady_pace() -> None:
    assert list(PLAIN.token_times_s(7, 50, 4, 3.0)) == pytest.approx([3.2, 3.21, 3.22, 3.23])


def test_a_served_request_shows_the_law() -> None:
    rows = served(PLAIN, workload((0.0, 50, 3), (0.05, 10, 1), (4.0, 1, 2)))
    assert [row["token_times_s"] for row in rows] == [
        pytest.approx([0.2, 0.21, 0.22], abs=1e-12),
        pytest.approx([0.17], abs=1e-12),
        pytest.approx([4.102, 4.112], abs=1e-12),
    ]
    assert all(row["dispatch_s"] == row["arrival_s"] == row["first_scheduled_s"] for row in rows)
    assert all(row["status"] == "finished" for row in rows)


@given(
    requests=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 500), st.integers(1, 30)), min_size=1, max_size=30),
    jitter=st.floats(0, 0.9),
    stall_at_s=st.floats(0, 3),
    stall_s=st.floats(0, 2),
)
def test_simulated_time_reproduces_any_law_exactly(
    requests: list[tuple[float, int, int]], jitter: float, stall_at_s: float, stall_s: float
) -> None:
    law = LatencyLaw(0.1, 0.002, 0.01, jitter=jitter, seed=3, stall_at_s=stall_at_s, stall_s=stall_s)
    work = workload(*sorted(requests))
    for request, row in zip(work.requests, served(law, work), strict=True):
        expected = law.token_times_s(
            request.request_id, request.prompt_tokens, request.output_tokens, request.arrival_s
        )
        assert row["token_times_s"] == list(expected)


def test_jitter_depends_on_seed_and_request_alone() -> None:
    law = LatencyLaw(0.1, 0.0, 0.01, jitter=0.5, seed=1)
    alone = law.token_times_s(5, 10, 20, 0.0)
    assert alone == law.token_times_s(5, 10, 20, 0.0)
    among_others = served(law, workload(*[(0.0, 10, 20)] * 8))
    assert among_others[5]["token_times_s"] == list(alone)
    assert alone != law.token_times_s(6, 10, 20, 0.0)
    assert alone != LatencyLaw(0.1, 0.0, 0.01, jitter=0.5, seed=2).token_times_s(5, 10, 20, 0.0)
    gaps = [later - earlier for earlier, later in pairwise(alone)]
    assert 0.005 <= min(gaps) < max(gaps) <= 0.015


def test_a_stall_holds_back_what_falls_due_in_it_and_nothing_else() -> None:
    law = LatencyLaw(ttft_s=0.1, tpot_s=0.1, stall_at_s=1.0, stall_s=0.25)
    times = law.token_times_s(0, 1, 6, 0.75)
    assert list(times) == pytest.approx([0.85, 0.95, 1.25, 1.25, 1.25, 1.35])


@pytest.mark.parametrize(
    "options",
    [{"ttft_s": -1.0}, {"jitter": 1.0}, {"slots": 0}, {"tpot_s": float("inf")}, {"stall_s": float("nan")}],
)
def test_a_law_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        LatencyLaw(**options)  # type: ignore[arg-type]
