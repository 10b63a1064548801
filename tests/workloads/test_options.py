"""Entries of a configuration: mistakes are named, lists become entries with readable names."""

import math
from collections.abc import Mapping

import pytest

from workloads import Request, Workload, WorkloadError, build, expand, realised

MISTAKES: list[tuple[Mapping[str, object], str]] = [
    ({}, "kind is missing"),
    ({"kind": "caht"}, "'caht' is not known .did you mean 'chat'"),
    ({"kind": 3}, "kind must be text"),
    ({"kind": "chat", "reqests": 3}, "unknown key 'reqests' .did you mean 'requests'"),
    ({"kind": "chat", "output": 3}, "unknown key 'output'"),
    ({"kind": "chat", "requests": 0}, "requests must be 1"),
    ({"kind": "chat", "requests": -4}, "requests must be 1"),
    ({"kind": "chat", "requests": 2.5}, "requests must be a whole number"),
    ({"kind": "chat", "requests": True}, "requests must be a whole number"),
    ({"kind": "chat", "requests": "10"}, "requests must be a whole number"),
    ({"kind": "chat", "requests": 10**9}, "requests must be 1 to"),
    ({"kind": "chat", "rate": 0}, "rate must be more than 0"),
    ({"kind": "chat", "rate": -0.5}, "rate must be more than 0"),
    ({"kind": "chat", "rate": math.nan}, "rate must be a finite number"),
    ({"kind": "chat", "rate": math.inf}, "rate must be a finite number"),
    ({"kind": "chat", "rate": 10**400}, "rate must be a finite number"),
    ({"kind": "chat", "rate": "fast"}, "rate must be a number"),
    ({"kind": "chat", "scale": 0}, "scale must be"),
    ({"kind": "chat", "scale": math.nan}, "scale must be a finite number"),
    ({"kind": "chat", "name": "a/b"}, "name must be"),
    ({"kind": "chat", "name": 5}, "name must be"),
    ({"kind": "long_output", "jitter": 1.5}, "jitter must be"),
    ({"kind": "long_output", "output": [1, 2]}, "output must be a whole number"),
    ({"kind": "long_output", "prompt": 2**31}, "prompt must be 1 to"),
    ({"kind": "batch", "batch": 8, "requests": 4}, r"requests must be at least batch \(8\)"),
    ({"kind": "multi_turn", "turns": 0}, "turns must be 1"),
    ({"kind": "multi_turn", "think_s": -1}, "think_s must be"),
    ({"kind": "trace"}, "path is missing"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes_are_named_in_one_line(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(WorkloadError, match=message) as caught:
        build(options, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, True])
def test_impossible_seed(seed: int) -> None:
    with pytest.raises(WorkloadError, match="seed"):
        build({"kind": "chat"}, seed)


def names(options: Mapping[str, object]) -> list[object]:
    return [entry["name"] for entry in expand(options)]


def test_one_list_is_one_axis() -> None:
    entries = expand({"kind": "long_output", "prompt": 1000, "output": [50, 300], "jitter": 0.1})
    assert [entry["output"] for entry in entries] == [50, 300]
    assert [entry["name"] for entry in entries] == ["long_output-50", "long_output-300"]
    assert [build(entry, 0).name for entry in entries] == ["long_output-50", "long_output-300"]


def test_several_lists_are_crossed_the_last_varying_fastest() -> None:
    assert names({"kind": "batch", "output": [32, 64], "batch": [1, 8]}) == [
        "batch-b1-o32",
        "batch-b1-o64",
        "batch-b8-o32",
        "batch-b8-o64",
    ]
    assert names({"kind": "chat", "rate": [0.5, 2]}) == ["chat-0.5rps", "chat-2rps"]


def test_no_list_is_one_entry_and_own_names_stay() -> None:
    assert expand({"kind": "chat", "rate": 0.8}) == [{"kind": "chat", "rate": 0.8, "name": "chat"}]
    assert names({"kind": "chat", "name": "evening", "rate": [1]}) == ["evening-1rps"]
    assert names({"kind": "trace", "path": "logs/our day (1).csv"}) == ["trace-our-day-1"]


def test_a_swept_rate_goes_with_any_arrivals() -> None:
    entries = expand({"kind": "chat", "rate": [1, 2], "arrivals": {"kind": "gamma", "arrival_cv": 2}})
    assert [build(entry, 0).arrivals for entry in entries] == ["gamma, 1/s, arrival_cv 2", "gamma, 2/s, arrival_cv 2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "chat", "rate": []}, "rate is an empty list"),
        ({"kind": "chat", "rate": [1, 1.0]}, "rate lists 1.0 twice"),
        ({"kind": "chat", "rate": ["a"]}, "rate must list numbers"),
        ({"kind": "chat", "output": [1]}, "unknown key 'output'"),
        ({"kind": "chatt", "rate": [1]}, "did you mean 'chat'"),
    ],
)
def test_bad_axes(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        expand(options)


def made(*requests: Request) -> Workload:
    return Workload("made", "made", requests, "", (), None)


def test_impossible_requests_and_workloads() -> None:
    for broken in ((-1.0, 1, 1), (math.nan, 1, 1), (0.0, 0, 1), (0.0, 1, 0), (0.0, 2**31, 1)):
        with pytest.raises(WorkloadError, match="request 0"):
            Request(0, *broken)
    with pytest.raises(WorkloadError, match="no requests"):
        made()
    with pytest.raises(WorkloadError, match="two requests with one request_id"):
        made(Request(0, 0.0, 1, 1), Request(0, 1.0, 1, 1))
    with pytest.raises(WorkloadError, match="order of their arrival"):
        made(Request(0, 1.0, 1, 1), Request(1, 0.0, 1, 1))


def test_realised_statistics_of_a_workload_known_by_heart() -> None:
    statistics = realised(made(Request(0, 0.0, 10, 1), Request(1, 1.0, 20, 2), Request(2, 4.0, 60, 3)))
    assert (statistics.requests, statistics.prompt_tokens_mean, statistics.prompt_tokens_p50) == (3, 30, 20)
    assert (statistics.output_tokens_mean, statistics.output_tokens_p99) == pytest.approx((2, 2.98))
    assert statistics.requests_per_s == 0.5
    assert statistics.arrival_cv == 0.5
