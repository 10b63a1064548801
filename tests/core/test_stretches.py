"""Small random worlds, run step by step and with as many steps at once as stand: the same plans at the same times."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.core.types import StepPlan, StepResult
from engines.gpu_only.policy import GpuOnly
from engines.neo.policy import Neo
from harness.journal import fingerprint, fingerprints

from .test_hybrid_properties import hybrids
from .test_scheduler_properties import Arrival, Case, cases
from .worlds import World, world


@dataclass
class Seen:
    """`at_once`: how many steps nobody decided."""

    plans: list[StepPlan] = field(default_factory=list)
    prints: list[str] = field(default_factory=list)
    times_s: list[tuple[float, float]] = field(default_factory=list)
    finished: list[tuple[int, int]] = field(default_factory=list)  # step, request
    counts: list[tuple[int, int, int]] = field(default_factory=list)  # running, waiting, blocks used
    at_once: int = 0


def run(case: Case, at_once: bool) -> Seen:
    w = world(
        case.accel_blocks,
        case.max_batch,
        case.max_batch_tokens,
        case.host_blocks,
        case.policy,
        case.page_tokens,
        case.host_page,
    )
    seen, step = Seen(), 0
    events = [arrival.step for arrival in case.arrivals] + [when for when, _ in case.aborts]
    while step <= max(events) or w.core.has_work:
        for request_id, arrival in enumerate(case.arrivals):
            if arrival.step == step:
                w.submit(request_id, arrival.prompt, arrival.output)
        for when, request_id in case.aborts:
            if when == step:
                w.core.abort(request_id)
        ahead = min([when - step for when in events if when > step], default=1000)
        step += (at_once and _stretch(w, seen, ahead)) or _step(w, seen)
        assert step < 50_000, "somebody starves"
    return seen


def _step(w: World, seen: Seen) -> int:
    plan = w.core.schedule(w.clock.now())
    if plan is not None:
        result: StepResult = w.executor.run(plan)
        events = w.core.commit(plan, result)
        seen.plans.append(plan)
        seen.prints.append(fingerprint(plan))
        seen.times_s.append((result.started_s, result.ended_s))
        seen.finished.extend((plan.step, request_id) for request_id in events.finished)
        used = sum(pool.used for pool in w.core.kv.pools.values())
        seen.counts.append((len(w.core.running), len(w.core.waiting), used))
    w.core.check_integrity()
    return 1


def _stretch(w: World, seen: Seen, ahead: int) -> int:
    stands = w.core.standing()
    if stands is None:
        return 0
    repeats = w.executor.repeat(replace(stands, steps=min(stands.steps, ahead)), None)
    if not len(repeats):
        return 0
    stretch = w.core.repeat(stands, repeats)
    plans = [stretch.plan_of(step) for step in range(1, len(stretch) + 1)]
    seen.plans.extend(plans)
    seen.prints.extend(fingerprints(stretch))
    seen.times_s.extend(zip(repeats.started_s, repeats.ended_s, strict=True))
    seen.finished.extend((plans[-1].step, request_id) for request_id in stretch.finished)
    used = map(sum, zip(*(stretch.blocks_used(tier) for tier in w.core.kv.pools), strict=True))
    seen.counts.extend(zip(stretch.running(), [stretch.after.waiting] * len(stretch), used, strict=True))
    seen.at_once += len(stretch)
    w.core.check_integrity()
    return len(stretch)


@settings(max_examples=400, deadline=None)
@given(st.one_of(cases, hybrids))
def test_steps_at_once_are_the_steps_one_by_one(case: Case) -> None:
    at_once, one_by_one = run(case, at_once=True), run(case, at_once=False)
    assert replace(at_once, at_once=0) == one_by_one


@pytest.mark.parametrize("policy", [GpuOnly(), Neo()])
def test_all_but_admissions_are_taken_at_once(policy: GpuOnly | Neo) -> None:
    """Blocks are given and requests end meanwhile."""
    arrivals = (Arrival(0, 20, 30), Arrival(0, 17, 40), Arrival(5, 10, 10))
    seen = run(Case(30, 4, 4, 8, 8, 200, policy, arrivals, ()), at_once=True)
    assert len(seen.plans) - seen.at_once == 2
    assert len(seen.finished) == 3


def test_who_waits_for_blocks_waits_while_others_grow() -> None:
    arrivals = (Arrival(0, 30, 60), Arrival(1, 60, 10), Arrival(9, 4, 4))
    seen = run(Case(25, 0, 4, 8, 4, 200, GpuOnly(), arrivals, ()), at_once=True)
    assert [waiting for _, waiting, _ in seen.counts].count(2) > 20
    assert seen.at_once > len(seen.plans) - 8


def test_nobody_repeats_what_does_not_stand_any_more() -> None:
    w = world(20)
    w.submit(0, 20, 30)
    w.step()
    stands = w.core.standing()
    assert stands is not None
    repeats = w.executor.repeat(stands, None)
    w.core.repeat(stands, repeats)
    with pytest.raises(RuntimeError, match="while it does"):
        w.core.repeat(stands, repeats)
