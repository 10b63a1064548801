"""Clipping: nothing above the limit, nothing lost uncounted, the output before the prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads import Request, Workload, WorkloadError, build, clip


def workload(*lengths: tuple[int, int]) -> Workload:
    requests = tuple(Request(number, 0.0, *pair) for number, pair in enumerate(lengths))
    return Workload("made", "made", requests, "all at once", (), None)


def tokens(made: Workload) -> tuple[int, int]:
    return sum(r.prompt_tokens for r in made.requests), sum(r.output_tokens for r in made.requests)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=20),
    limit=st.integers(2, 110),
)
def test_tokens_are_conserved(lengths: list[tuple[int, int]], limit: int) -> None:
    before = workload(*lengths)
    after = clip(before, limit)
    assert after.clipped is not None
    cut = (after.clipped.prompt_tokens_cut, after.clipped.output_tokens_cut)
    assert tuple(a + b for a, b in zip(tokens(after), cut, strict=True)) == tokens(before)
    assert all(r.prompt_tokens + r.output_tokens <= limit for r in after.requests)
    changed = [(old, new) for old, new in zip(before.requests, after.requests, strict=True) if old != new]
    assert after.clipped.clipped_requests == len(changed)
    assert all(old.prompt_tokens + old.output_tokens > limit for old, _ in changed)
    assert all(new.prompt_tokens + new.output_tokens == limit for _, new in changed)


def test_the_output_goes_first_then_the_prompt() -> None:
    after = clip(workload((50, 50), (59, 30), (60, 1), (200, 10)), 60)
    assert [(r.prompt_tokens, r.output_tokens) for r in after.requests] == [(50, 10), (59, 1), (59, 1), (59, 1)]


def test_a_workload_that_fits_says_that_nothing_was_cut() -> None:
    before = build({"kind": "summarize", "requests": 50, "rate": 1}, 0)
    after = clip(before, 4096)
    assert after.requests == before.requests
    assert after.clipped is not None
    assert (after.clipped.limit_tokens, after.clipped.clipped_requests) == (4096, 0)


def test_clipping_happens_once_and_leaves_room_for_a_token_of_each() -> None:
    with pytest.raises(WorkloadError, match="already clipped"):
        clip(clip(workload((5, 5)), 8), 4)
    with pytest.raises(WorkloadError, match="max_request_tokens"):
        clip(workload((5, 5)), 1)
