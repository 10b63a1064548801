"""The same thousands of random runs for the hybrids: two tiers, halves, cohorts in flight, aborts while they fly."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.apex.policy import Apex
from engines.core.policy import Proposal
from engines.core.types import Mode, StepPlan, Tier
from engines.neo.policy import Neo
from engines.static_partition.policy import StaticPartition

from .test_scheduler_properties import Case, cases, check_endings, check_order, run
from .worlds import world

policies = st.one_of(
    st.builds(StaticPartition, host_share=st.sampled_from([0.0, 0.3, 1.0])),
    st.builds(Neo),
    st.builds(
        Apex,
        selector=st.sampled_from(["predicted", "paper"]),
        mode=st.sampled_from(["auto", "gpu_only", "asymmetric", "async_overlap", "full_overlap"]),
        cohorts=st.sampled_from([0, 1, 3]),
        hysteresis=st.sampled_from([0.0, 0.3]),
    ),
)
hybrids = st.builds(lambda case, policy: replace(case, policy=policy), cases, policies)


@settings(max_examples=1000, deadline=None)
@given(hybrids)
def test_every_request_ends_with_exactly_its_tokens_or_a_reason(case: Case) -> None:
    check_endings(case)


@settings(max_examples=150, deadline=None)
@given(hybrids)
def test_first_come_first_served(case: Case) -> None:
    check_order(case)


@settings(max_examples=200, deadline=None)
@given(st.one_of(cases, hybrids))
def test_deciding_for_everybody_at_once_is_deciding_one_by_one(case: Case) -> None:
    def plans(one_by_one: bool) -> list[StepPlan]:
        with pytest.MonkeyPatch.context() as patch:
            if one_by_one:
                patch.setattr(Proposal, "_all_decode", lambda self, standing, _, room: self._one_by_one(standing, room))
            return run(case)[0].plans

    assert plans(one_by_one=False) == plans(one_by_one=True)


def test_an_abort_in_flight_gives_its_place_back_when_its_cohort_lands() -> None:
    w = world(4, max_batch=8, max_batch_tokens=256, host_blocks=40, policy=Apex(mode="async_overlap", cohorts=1))
    for request_id in range(6):
        assert w.submit(request_id, 30, 20)
    while not w.core.cohorts:
        w.step()
    [cohort] = w.core.cohorts
    flying = cohort.requests[0]
    free = len(w.core.kv.pools[Tier.HOST].free)
    assert w.core.abort(flying.request_id)
    w.core.check_integrity()
    assert len(w.core.kv.pools[Tier.HOST].free) == free, "the cohort still reads its pages"
    assert w.core.kv.pools[Tier.HOST].draining
    w.run_out()
    assert len(w.core.kv.pools[Tier.HOST].free) == 40
    assert sorted(w.finished) == [r for r in range(6) if r != flying.request_id]


def test_forced_modes_run_when_they_can() -> None:
    for mode in ("asymmetric", "async_overlap", "full_overlap"):
        w = world(8, max_batch=12, max_batch_tokens=256, host_blocks=40, policy=Apex(mode=mode))
        for request_id in range(10):
            assert w.submit(request_id, 40, 30)
        w.run_out()
        assert sum(plan.mode is Mode(mode) for plan in w.plans) > 20


def test_a_long_context_on_the_host_is_not_overtaken_for_ever() -> None:
    for mode in ("auto", "async_overlap", "full_overlap"):
        w = world(8, max_batch=12, max_batch_tokens=256, host_blocks=40, policy=Apex(mode=mode, cohorts=2))
        assert w.submit(0, 100, 25)
        assert w.submit(1, 110, 15)
        for step in range(1500):
            w.submit(2 + step, 5, 8)  # short ones keep coming
            w.step()
            if 1 in w.finished:
                break
        assert 1 in w.finished, mode
