"""Every schedule: its rate and variation, and what the short and the long form of the options mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads import ARRIVAL_KINDS, Workload, WorkloadError, build, realised

SMALL = {"kind": "batch", "batch": 1, "prompt": 4, "output": 2}


def scheduled(arrivals: object, requests: int = 20_000, seed: int = 0) -> Workload:
    return build({**SMALL, "requests": requests, "arrivals": arrivals}, seed)


def times(workload: Workload) -> list[float]:
    return [request.arrival_s for request in workload.requests]


@pytest.mark.parametrize(
    ("arrivals", "variation"),
    [
        ({"kind": "constant", "rate": 2.5}, 0.0),
        ({"kind": "poisson", "rate": 2.5}, 1.0),
        ({"kind": "gamma", "rate": 2.5, "arrival_cv": 0.5}, 0.5),
        ({"kind": "gamma", "rate": 2.5, "arrival_cv": 2}, 2.0),
        ({"kind": "burst", "rate": 2.5, "burst": 10}, 3.0),  # gaps: nine of 0, one of ten means
        ({"kind": "azure_conv", "rate": 2.5}, 1.094),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_rate_and_variation(arrivals: dict[str, object], variation: float, seed: int) -> None:
    statistics = realised(scheduled(arrivals, seed=seed))
    assert statistics.requests_per_s == pytest.approx(2.5, rel=0.05)
    assert statistics.arrival_cv == pytest.approx(variation, rel=0.05, abs=1e-6)


@pytest.mark.parametrize("kind", ["all_at_once", "constant", "poisson", "gamma", "azure_conv", "burst"])
@given(requests=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_times_begin_at_zero_and_never_fall(kind: str, requests: int, seed: int) -> None:
    extra: dict[str, object] = {} if kind == "all_at_once" else {"rate": 3.0}
    if kind == "gamma":
        extra["arrival_cv"] = 5
    arrivals = times(scheduled({"kind": kind, **extra}, requests, seed))
    assert arrivals[0] == 0
    assert np.all(np.diff(arrivals) >= 0)


@pytest.mark.parametrize("kind", ["constant", "poisson", "burst", "azure_conv"])
def test_another_rate_is_the_same_schedule_stretched(kind: str) -> None:
    slow, fast = (times(scheduled({"kind": kind, "rate": rate}, 50)) for rate in (1.0, 4.0))
    assert slow == pytest.approx([4 * time for time in fast])


def test_nothing_given_is_all_at_once_and_has_no_rate() -> None:
    workload = build({"kind": "chat", "requests": 5}, 0)
    assert workload.arrivals == "all at once"
    assert times(workload) == [0.0] * 5
    assert realised(workload).requests_per_s is None
    assert realised(workload).arrival_cv is None


def test_rate_alone_is_poisson_and_beside_arrivals_theirs() -> None:
    assert build({"kind": "chat", "rate": 0.8}, 0).arrivals == "Poisson, 0.8/s"
    assert build({"kind": "chat", "rate": 0.8, "arrivals": "constant"}, 0).arrivals == "constant, 0.8/s"
    with pytest.raises(WorkloadError, match="rate is given twice"):
        build({"kind": "chat", "rate": 0.8, "arrivals": {"kind": "poisson", "rate": 1}}, 0)


def test_measured_arrivals_name_their_source() -> None:
    assert "Azure" in build({"kind": "cot", "arrivals": "azure_conv"}, 0).sources[-1]


def test_closed_loop_says_how_many_users_and_no_times() -> None:
    workload = scheduled({"kind": "closed_loop", "users": 3, "think_s": 1.5}, 10)
    assert workload.closed_loop_users == 3
    assert {request.think_s for request in workload.requests} == {1.5}
    assert times(workload) == [0.0] * 10
    assert realised(workload).requests_per_s is None


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        ("posson", "did you mean 'poisson'"),
        ({"rate": 1}, "kind is missing"),
        ({"kind": "poisson"}, "rate is missing"),
        ({"kind": "poisson", "rate": 0}, "rate must be more than 0"),
        ({"kind": "constant", "rate": -1}, "rate must be more than 0"),
        ({"kind": "gamma", "rate": 1}, "arrival_cv is missing"),
        ({"kind": "gamma", "rate": 1, "arrival_cv": 0}, "arrival_cv must be"),
        ({"kind": "gamma", "rate": 1, "arrivalcv": 1}, "did you mean 'arrival_cv'"),
        ({"kind": "burst", "rate": 1, "burst": 2.5}, "burst must be a whole number"),
        ({"kind": "closed_loop"}, "users is missing"),
        ({"kind": "closed_loop", "users": 0}, "users must be 1"),
        ({"kind": "closed_loop", "users": 2, "rate": 1}, "unknown key 'rate'"),
        ({"kind": "trace"}, "need a workload of kind 'trace'"),
        (7, "must be a kind"),
        ({"kind": "poisson", "rate": 1e-320}, "finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_mistakes_are_named(arrivals: object, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        scheduled(arrivals, 10)


def test_every_kind_is_listed() -> None:
    assert {"all_at_once", "constant", "poisson", "gamma", "burst", "trace", "closed_loop"} <= set(ARRIVAL_KINDS)
