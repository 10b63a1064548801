"""What preempted requests find again: in which order blocks are handed out, and that what is found belongs there."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.core.errors import IntegrityError, PolicyError
from engines.core.policy import BatchDecision, Decision, Prefill, View
from engines.core.request import Request
from engines.core.reuse import ReusingKv
from engines.core.types import Mode, RequestSpec, StepPlan, Tier
from engines.gpu_only.policy import GpuOnly

from .test_scheduler_properties import Case, cases, run
from .worlds import World, capabilities, world

KEEPING = GpuOnly(keep_preempted_kv=True)
keeping = st.builds(lambda case: replace(case, policy=replace(case.policy, keep_preempted_kv=True)), cases)


def holder(kv: ReusingKv, request_id: int, known: int, computed: int) -> Request:
    request = Request(RequestSpec(request_id, known, 10), request_id)
    kv.grow(request, known)
    request.computed = computed
    return request


def found_by(kv: ReusingKv, request: Request, taken: int) -> list[int]:
    coming_back = kv.coming_back(taken)
    return coming_back.found(request) if coming_back is not None else []


def test_the_longest_free_goes_first_and_of_a_request_its_last_block() -> None:
    kv = ReusingKv(capabilities(6))
    first, second = holder(kv, 0, 32, 32), holder(kv, 1, 48, 48)
    assert (first.blocks, second.blocks) == ([0, 1], [2, 3, 4])
    kv.evict(second)
    kv.evict(first)
    taker = Request(RequestSpec(2, 96, 10), 2)
    assert kv.grow(taker, 96) == [5, 4, 3, 2, 1, 0]


def test_it_finds_its_beginning_as_far_as_nobody_was_given_it() -> None:
    kv = ReusingKv(capabilities(6))
    request = holder(kv, 0, 60, 60)
    kv.evict(request)
    found = [found_by(kv, request, taken) for taken in range(7)]
    whole = [0, 1, 2]
    assert found == [whole, whole, whole, whole, [0, 1], [0], []], "two were never used, and block 3 was not full"


def test_one_token_at_least_is_computed_anew() -> None:
    kv = ReusingKv(capabilities(4))
    request = holder(kv, 0, 48, 48)
    kv.evict(request)
    assert found_by(kv, request, 0) == [0, 1]
    request.known += 1
    assert found_by(kv, request, 0) == [0, 1, 2]


def test_only_what_was_computed_counts() -> None:
    kv = ReusingKv(capabilities(4))
    request = holder(kv, 0, 60, 33)
    kv.evict(request)
    assert found_by(kv, request, 0) == [0, 1]


def test_a_block_given_away_in_between_is_not_found_although_it_is_free_again() -> None:
    kv = ReusingKv(capabilities(3))
    request = holder(kv, 0, 48, 47)
    kv.evict(request)
    other = holder(kv, 1, 16 * 2, 32)
    assert other.blocks == [2, 1]
    kv.release(other)
    assert found_by(kv, request, 0) == [0]


def test_its_own_block_at_another_place_is_not_found() -> None:
    """It was given its last block again for its beginning, and preempted before it came to its end."""
    kv = ReusingKv(capabilities(2))
    request = holder(kv, 0, 32, 32)
    request.known = 40
    kv.evict(request)
    assert kv.grow(request, 16) == [1]
    request.computed = 16
    kv.evict(request)
    assert found_by(kv, request, 0) == [1], "block 1 holds the beginning now, so the second one is gone"


def test_what_it_had_not_come_to_again_is_still_found() -> None:
    kv = ReusingKv(capabilities(8))
    request = holder(kv, 0, 49, 49)
    kv.evict(request)
    request.known = 60
    assert kv.reclaim(request, 1)
    assert (request.blocks, request.computed, request.capacity) == ([0], 16, 16)
    kv.evict(request)
    assert found_by(kv, request, 0) == [0, 1, 2]


def test_who_comes_first_takes_before_the_others_look() -> None:
    kv = ReusingKv(capabilities(8))
    older, younger = holder(kv, 0, 60, 60), holder(kv, 1, 60, 60)
    kv.evict(younger)
    kv.evict(older)
    coming_back = kv.coming_back(0)
    assert coming_back is not None
    found = coming_back.found(older)
    assert found == [0, 1, 2]
    coming_back.let_in(found, 5)
    assert coming_back.found(younger) == [4, 5], "the last two of its blocks were free the longest"


def test_whoever_has_ended_leaves_nothing_behind() -> None:
    kv = ReusingKv(capabilities(4))
    request = holder(kv, 0, 40, 40)
    kv.evict(request)
    kv.check_integrity([request])
    with pytest.raises(IntegrityError, match="who are gone"):
        kv.check_integrity([])
    kv.release(request)
    kv.check_integrity([])
    assert kv.coming_back(0) is None


def starved(policy: GpuOnly) -> World:
    w = world(accel_blocks=16, max_batch=3, policy=policy)
    for request_id in range(3):
        w.submit(request_id, prompt=40, output=100)
    w.run_out()
    return w


def prefilled(w: World) -> int:
    return sum(plan.batches[0].prefill_tokens for plan in w.plans)


def test_what_is_found_is_not_computed_again() -> None:
    forgetful, w = starved(GpuOnly()), starved(KEEPING)
    assert sum(len(plan.preempted) for plan in w.plans) > 0
    assert sum(plan.found_tokens for plan in forgetful.plans) == 0
    found = sum(plan.found_tokens for plan in w.plans)
    assert found > 0
    assert prefilled(w) < prefilled(forgetful)
    assert w.delivered == forgetful.delivered == dict.fromkeys(range(3), 100)


class _Claims(GpuOnly):
    """Block 0 of whoever waits, who never had it; or lets nobody in whom it gave blocks to."""

    def decide(self, view: View) -> Decision:
        first = view.waiting[0]
        batch = BatchDecision(prefills=[Prefill(first, 1, Tier.ACCEL)])
        return Decision(Mode.GPU_ONLY, (batch,), found=[(first, 1)])


@pytest.mark.parametrize("keep", [False, True])
def test_nobody_finds_what_is_not_there(keep: bool) -> None:
    w = world(accel_blocks=8, policy=_Claims(keep_preempted_kv=keep))
    w.submit(0, prompt=40, output=10)
    with pytest.raises(PolicyError, match="does not find 1 of its blocks"):
        w.core.schedule(0.0)


class _Forgets(GpuOnly):
    def decide(self, view: View) -> Decision:
        decision = super().decide(view)
        if not decision.found:
            return decision
        others = [replace(batch, prefills=(), decodes=view.running) for batch in decision.batches]
        return replace(decision, batches=tuple(others))


def test_who_is_given_its_blocks_is_admitted() -> None:
    w = world(accel_blocks=10, max_batch=3, policy=_Forgets(keep_preempted_kv=True))
    for request_id in range(3):
        w.submit(request_id, prompt=40, output=60)
    with pytest.raises(PolicyError, match="not admitted"):
        w.run_out()


class Contents:
    """What plans put into the blocks: which request's token, at which position."""

    def __init__(self, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self.tokens: dict[tuple[int, int], tuple[int, int]] = {}  # block, offset -> request, position
        self.tables: dict[int, list[int]] = {}
        self.owners: dict[int, int] = {}

    def follow_all(self, plans: Sequence[StepPlan]) -> None:
        for plan in plans:
            self.follow(plan)

    def follow(self, plan: StepPlan) -> None:
        for ended in plan.changes.ends:
            del self.tables[ended]
        for bound in plan.changes.starts:
            self.tables[bound.slot], self.owners[bound.slot] = [], bound.request_id
        for slot, block in zip(plan.changes.grown_slots, plan.changes.grown_blocks, strict=True):
            self.tables[slot].append(block)
        rows = [(chunk.slot, chunk.start, chunk.length) for batch in plan.batches for chunk in batch.prefills]
        for batch in plan.batches:
            rows += [(slot, at, 1) for slot, at in zip(batch.decode_slots, batch.decode_positions, strict=True)]
        for slot, start, length in rows:
            for position in range(start, start + length):
                self.tokens[self._where(slot, position)] = (self.owners[slot], position)
        for slot, start, length in rows:
            for position in range(start + length):
                assert self.tokens.get(self._where(slot, position)) == (self.owners[slot], position)

    def _where(self, slot: int, position: int) -> tuple[int, int]:
        return self.tables[slot][position // self.page_tokens], position % self.page_tokens


@settings(max_examples=500, deadline=None)
@given(keeping)
def test_whoever_attends_reads_its_own_tokens(case: Case) -> None:
    """Without a host: what moves between tiers is another test's."""
    w, _, _ = run(replace(case, host_blocks=0))
    Contents(case.page_tokens).follow_all(w.plans)


def test_the_test_above_would_see_a_block_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.core.reuse.LongestFreeFirst.holds", lambda self, block, place: block in list(self))
    contents = Contents(16)
    w = world(accel_blocks=16, max_batch=6, policy=KEEPING)
    for request_id in range(12):
        w.submit(request_id, prompt=20 + 7 * request_id % 40, output=60)
    w.run_out()
    with pytest.raises(AssertionError):
        contents.follow_all(w.plans)
