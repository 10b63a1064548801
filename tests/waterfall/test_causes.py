"""A slowdown of each kind, injected into a simulated cell, is the largest term of the waterfall that explains it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from results.waterfall import Cause, Waterfall, explain_change, mean_of
from tests.waterfall import worlds
from tests.waterfall.worlds import World

STATIC = "{kind: static_partition, host_share: 0.5}"
SWAP = "{kind: gpu_only, preemption: swap}"
CHAT = "{{kind: chat, rate: {}, requests: 16}}"
LONG = World()
LONG_PROMPTS = World(
    workload="{kind: long_output, prompt: 700, output: 60, jitter: 0, requests: 9}",
    sets=("budget.max_batch=3", "budget.accel_kv_tokens=2416"),
    machine=worlds.few_flops,
)

INJECTED = {
    "accelerator": (LONG, replace(LONG, machine=worlds.slower_accelerator), Cause.LINEAR),
    "accelerator of a hybrid": (
        World("neo"),
        World("neo", machine=worlds.slower_accelerator),
        Cause.LINEAR,
    ),
    "accelerator attention": (LONG, replace(LONG, machine=worlds.slower_accelerator_attention), Cause.ATTENTION),
    "host kernel": (World(STATIC), World(STATIC, machine=worlds.slower_host_attention), Cause.HOST),
    "host kernel, answered by a smaller batch": (
        World("neo"),
        World("neo", machine=worlds.slower_host_attention),
        Cause.HOST,
    ),
    "link": (World("weight_streaming"), World("weight_streaming", machine=worlds.slower_link), Cause.LINKS),
    "link of swapped KV": (
        World(SWAP, sets=("budget.accel_kv_tokens=1104",)),
        World(SWAP, sets=("budget.accel_kv_tokens=1104",), machine=worlds.slower_link),
        Cause.LINKS,
    ),
    "scheduler": (LONG, replace(LONG, machine=worlds.slower_scheduler), Cause.SCHEDULER),
    "scheduler of a hybrid": (World("apex"), World("apex", machine=worlds.slower_scheduler), Cause.SCHEDULER),
    "batch cap": (LONG, replace(LONG, sets=("budget.max_batch=2",)), Cause.BATCH),
    "batch cap of a hybrid": (World("neo"), World("neo", sets=("budget.max_batch=2",)), Cause.BATCH),
    "KV memory": (LONG, replace(LONG, sets=("budget.accel_kv_tokens=1200",)), Cause.MEMORY),
    "preemption": (
        LONG_PROMPTS,
        replace(LONG_PROMPTS, sets=("budget.max_batch=3", "budget.accel_kv_tokens=2200")),
        Cause.PREEMPTION,
    ),
    "arrivals": (World(workload=CHAT.format(0.3)), World(workload=CHAT.format(0.05)), Cause.ARRIVALS),
    "arrivals at a hybrid": (
        World("neo", workload=CHAT.format(0.6)),
        World("neo", workload=CHAT.format(0.1)),
        Cause.ARRIVALS,
    ),
}

Explain = Callable[[World, World], Waterfall]


@pytest.fixture(scope="module")
def explain(tmp_path_factory: pytest.TempPathFactory) -> Explain:
    """Every cell is served once."""
    home, numbers = tmp_path_factory.mktemp("cells"), itertools.count()
    served = {}

    def explained(before: World, after: World) -> Waterfall:
        for world in (before, after):
            if world not in served:
                served[world] = world.serve(home / str(next(numbers)))
        return explain_change(served[before], served[after])

    return explained


@pytest.mark.parametrize("what", INJECTED)
def test_what_was_injected_is_the_largest_term(what: str, explain: Explain) -> None:
    before, after, cause = INJECTED[what]
    found = explain(before, after)
    assert found.change < 0
    assert found.largest.cause is cause, found.terms
    assert (found.largest.share or 0) > 0.6, found.terms


@pytest.mark.parametrize("what", INJECTED)
def test_terms_add_up_and_change_their_signs(what: str, explain: Explain) -> None:
    before, after, _ = INJECTED[what]
    found, back = explain(before, after), explain(after, before)
    assert sum(term.tokens_per_s for term in found.terms) == pytest.approx(found.change, abs=1e-9)
    assert sum(term.share or 0 for term in found.terms) == pytest.approx(1, abs=1e-9)
    assert [term.tokens_per_s for term in back.terms] == pytest.approx(
        [-term.tokens_per_s for term in found.terms], abs=1e-9
    )
    assert (back.before, back.after) == (found.after, found.before)


def test_a_scheduler_that_slows_every_step_alike_is_all_of_the_change(explain: Explain) -> None:
    """Nothing else moves with it, so that nothing else may be named."""
    found = explain(LONG, replace(LONG, machine=worlds.slower_scheduler))
    assert found.largest.share == pytest.approx(1, abs=1e-6)
    assert (found.largest.before, found.largest.after) == pytest.approx((2e-3, 22e-3))


def test_two_slowdowns_at_once_are_both_named(explain: Explain) -> None:
    both = replace(LONG, machine=lambda machine: worlds.slower_scheduler(worlds.slower_accelerator_attention(machine)))
    found = explain(LONG, both)
    first, second, *rest = sorted(found.terms, key=lambda term: term.tokens_per_s)
    assert {first.cause, second.cause} == {Cause.SCHEDULER, Cause.ATTENTION}
    assert all(abs(term.tokens_per_s) < 0.01 * abs(found.change) for term in rest)


def test_what_became_slower_by_itself_is_said_beside_it(explain: Explain) -> None:
    found = explain(World("neo"), World("neo", machine=worlds.slower_host_attention))
    speeds = {(speed.operator, speed.unit): speed.ratio for speed in found.speeds}
    assert speeds["attention", "CPU"] == pytest.approx(2, rel=0.03)
    assert found.speeds[0].unit == "CPU"


def test_a_cell_does_not_differ_from_itself(explain: Explain) -> None:
    found = explain(LONG, LONG)
    assert [(term.tokens_per_s, term.share) for term in found.terms] == [(0.0, None)] * len(Cause)
    assert found.speeds == ()


def test_a_mean_of_pairs_adds_up_as_well(explain: Explain) -> None:
    pairs = [explain(*INJECTED[what][:2]) for what in ("accelerator", "scheduler", "batch cap")]
    found = mean_of(pairs)
    assert found.change == pytest.approx(sum(each.change for each in pairs) / 3)
    assert sum(term.tokens_per_s for term in found.terms) == pytest.approx(found.change, abs=1e-9)
    assert mean_of([pairs[0]]) == pairs[0]
