"""multi_turn: the history grows by what was said, turns follow each other, prompts share their beginning."""

from collections import defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import Request, Workload, build, prompt_token_ids


def conversations(workload: Workload) -> dict[int, list[Request]]:
    found: dict[int, list[Request]] = defaultdict(list)
    for request in workload.requests:
        found[request.session].append(request)
    return found


@settings(max_examples=25, deadline=None)
@given(
    requests=st.integers(1, 60),
    turns=st.integers(1, 7),
    scale=st.floats(0.01, 1),
    arrivals=st.sampled_from(
        [None, "all_at_once", {"kind": "poisson", "rate": 2}, {"kind": "closed_loop", "users": 3}]
    ),
    seed=st.integers(0, 1000),
)
def test_history_grows(requests: int, turns: int, scale: float, arrivals: object, seed: int) -> None:
    options = {"kind": "multi_turn", "requests": requests, "turns": turns, "scale": scale, "arrivals": arrivals}
    workload = build(options, seed)
    assert len(workload.requests) == requests
    assert [request.request_id for request in workload.requests] == list(range(requests))
    for session in conversations(workload).values():
        assert [request.turn for request in session] == list(range(len(session)))
        for before, after in pairwise(session):
            assert after.prompt_tokens > before.prompt_tokens + before.output_tokens
            assert after.arrival_s >= before.arrival_s


def test_later_turns_are_due_think_time_after_the_turn_before_at_the_earliest() -> None:
    workload = build({"kind": "multi_turn", "requests": 40, "think_s": 3, "rate": 1}, 0)
    for session in conversations(workload).values():
        assert session[0].think_s == 0
        for before, after in pairwise(session):
            assert after.think_s > 0
            assert after.arrival_s == before.arrival_s + after.think_s


def test_arrivals_change_no_length() -> None:
    def lengths(**options: object) -> dict[tuple[int, int], tuple[int, int]]:
        workload = build({"kind": "multi_turn", "requests": 50, **options}, 4)
        return {(r.session, r.turn): (r.prompt_tokens, r.output_tokens) for r in workload.requests}

    assert lengths() == lengths(rate=0.1) == lengths(arrivals={"kind": "closed_loop", "users": 4})


def test_a_prompt_begins_with_the_prompt_of_the_turn_before() -> None:
    workload = build({"kind": "multi_turn", "requests": 12, "turns": 4}, 0)
    for session in conversations(workload).values():
        prompts = [prompt_token_ids(request, 32_000, seed=5) for request in session]
        for before, after in pairwise(prompts):
            assert after[: len(before)] == before


def test_closed_loop_users_think_before_a_new_conversation_too() -> None:
    arrivals = {"kind": "closed_loop", "users": 2, "think_s": 0.5}
    workload = build({"kind": "multi_turn", "requests": 9, "turns": 3, "arrivals": arrivals}, 0)
    assert {request.think_s for request in workload.requests if request.turn == 0} == {0.5}
    assert {request.arrival_s for request in workload.requests} == {0.0}
    assert [request.session for request in workload.requests] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
