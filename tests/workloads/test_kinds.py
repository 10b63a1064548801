"""The kinds of workload: deterministic, independent of the rate, shrunk by one factor, and what each promises."""

import pytest

from workloads import KINDS, Workload, build, realised

GENERATED = [kind for kind in KINDS if kind != "trace"]
SINGLE_TURN = [kind for kind in GENERATED if kind != "multi_turn"]


def of(kind: str, requests: int = 40, seed: int = 0, **options: object) -> Workload:
    return build({"kind": kind, "requests": requests, **options}, seed)


def lengths(workload: Workload) -> list[tuple[int, int]]:
    return [(request.prompt_tokens, request.output_tokens) for request in workload.requests]


@pytest.mark.parametrize("kind", GENERATED)
def test_same_seed_same_workload_other_seed_another(kind: str) -> None:
    assert of(kind, rate=2.0) == of(kind, rate=2.0)
    assert of(kind, rate=2.0).requests != of(kind, rate=2.0, seed=1).requests


@pytest.mark.parametrize("kind", SINGLE_TURN)
def test_arrivals_do_not_change_lengths(kind: str) -> None:
    drawn = lengths(of(kind))
    assert lengths(of(kind, rate=0.5)) == drawn
    assert lengths(of(kind, arrivals={"kind": "gamma", "rate": 9, "arrival_cv": 3})) == drawn


@pytest.mark.parametrize("kind", SINGLE_TURN)
def test_more_requests_extend_the_workload(kind: str) -> None:
    long, short = of(kind, 60, rate=2.0), of(kind, 20, rate=2.0)
    assert long.requests[:20] == short.requests


@pytest.mark.parametrize("kind", GENERATED)
def test_scale_shrinks_every_length_and_keeps_one_token(kind: str) -> None:
    plain, tiny = realised(of(kind, 200)), realised(of(kind, 200, scale=0.1))
    assert tiny.prompt_tokens_mean == pytest.approx(plain.prompt_tokens_mean / 10, rel=0.02)
    assert tiny.output_tokens_mean == pytest.approx(plain.output_tokens_mean / 10, rel=0.02, abs=0.2)
    assert all(min(pair) >= 1 for pair in lengths(of(kind, scale=1e-6)))
    assert of(kind, scale=0.1).sources[-1] == "all lengths scaled by 0.1"


@pytest.mark.parametrize("kind", GENERATED)
def test_defaults_are_enough_and_sources_are_named(kind: str) -> None:
    workload = build({"kind": kind}, 0)
    assert workload.name == workload.kind == kind
    assert workload.sources
    assert workload.clipped is None
    assert [request.request_id for request in workload.requests] == list(range(len(workload.requests)))
    assert KINDS[kind].description


def test_chat_and_code_are_about_as_long_as_described() -> None:
    chat, code = realised(of("chat", 5000)), realised(of("code", 5000))
    assert (chat.prompt_tokens_p50, chat.output_tokens_p50) == pytest.approx((1020, 129), rel=0.05)
    assert (code.prompt_tokens_mean, code.output_tokens_mean) == pytest.approx((2048, 28), rel=0.05)


def test_long_output_jitters_both_lengths() -> None:
    workload = of("long_output", 500, prompt=1000, output=300, jitter=0.1)
    prompts, outputs = zip(*lengths(workload), strict=True)
    assert 900 <= min(prompts) < 910 < 1090 < max(prompts) <= 1100
    assert 270 <= min(outputs) < 275 < 325 < max(outputs) <= 330


def test_batch_is_that_many_equal_requests_at_once() -> None:
    workload = build({"kind": "batch", "batch": 8, "prompt": 32, "output": 16}, 0)
    assert lengths(workload) == [(32, 16)] * 8
    assert workload.arrivals == "all at once"
    assert workload.closed_loop_users == 0


def test_batch_with_more_requests_stays_that_many_in_flight() -> None:
    workload = build({"kind": "batch", "batch": 8, "requests": 20}, 0)
    assert len(workload.requests) == 20
    assert workload.closed_loop_users == 8
