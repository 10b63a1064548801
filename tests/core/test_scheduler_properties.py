"""Thousands of random runs in virtual time: nothing is lost, nobody starves, everyone gets exactly their tokens."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.core.policy import Policy
from engines.core.types import Tier
from engines.gpu_only.policy import GpuOnly

from .worlds import World, world


@dataclass(frozen=True)
class Arrival:
    step: int
    prompt: int
    output: int


@dataclass(frozen=True)
class Case:
    accel_blocks: int
    host_blocks: int
    page_tokens: int
    host_page: int
    max_batch: int
    max_batch_tokens: int
    policy: Policy
    arrivals: tuple[Arrival, ...]
    aborts: tuple[tuple[int, int], ...]  # (step, request)


cases = st.builds(
    Case,
    accel_blocks=st.integers(1, 30),
    host_blocks=st.integers(0, 12),
    page_tokens=st.sampled_from([1, 4, 16]),
    host_page=st.sampled_from([1, 8, 64]),
    max_batch=st.integers(1, 6),
    max_batch_tokens=st.integers(1, 70),
    policy=st.builds(
        GpuOnly,
        preemption=st.sampled_from(["recompute", "swap"]),
        admit=st.sampled_from(["prompt", "chunk"]),
        keep_preempted_kv=st.booleans(),
    ),
    arrivals=st.lists(
        st.builds(Arrival, step=st.integers(0, 40), prompt=st.integers(1, 150), output=st.integers(1, 40)),
        min_size=1,
        max_size=12,
    ).map(tuple),
    aborts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 11)), max_size=2).map(tuple),
)


def run(case: Case) -> tuple[World, set[int], set[int]]:
    """Every invariant is checked after every step by `World.step`; returns (world, refused, aborted)."""
    w = world(
        case.accel_blocks,
        case.max_batch,
        case.max_batch_tokens,
        case.host_blocks,
        case.policy,
        case.page_tokens,
        case.host_page,
    )
    refused: set[int] = set()
    aborted: set[int] = set()
    step = 0
    last_event = max([arrival.step for arrival in case.arrivals] + [when for when, _ in case.aborts])
    while step <= last_event or w.core.has_work:
        for request_id, arrival in enumerate(case.arrivals):
            if arrival.step == step and not w.submit(request_id, arrival.prompt, arrival.output):
                refused.add(request_id)
        for when, request_id in case.aborts:
            if when == step and w.core.abort(request_id):
                aborted.add(request_id)
                w.core.check_integrity()
        w.step()
        step += 1
        assert step < 50_000, "somebody starves"
    return w, refused, aborted


@settings(max_examples=1500, deadline=None)
@given(cases)
def test_every_request_ends_with_exactly_its_tokens_or_a_reason(case: Case) -> None:
    check_endings(case)


def check_endings(case: Case) -> None:
    w, refused, aborted = run(case)
    for request_id, arrival in enumerate(case.arrivals):
        got = w.delivered.get(request_id, 0)
        if request_id in refused:
            assert got == 0
            assert arrival.prompt + arrival.output - 1 > case.accel_blocks * case.page_tokens
        elif request_id in aborted:
            assert got < arrival.output
        else:
            assert got == arrival.output
            assert request_id in w.finished
    for tier, blocks in ((Tier.ACCEL, case.accel_blocks), (Tier.HOST, case.host_blocks)):
        assert len(w.core.kv.pools[tier].free) == blocks
        assert not w.core.kv.pools[tier].draining


@settings(max_examples=500, deadline=None)
@given(cases)
def test_first_come_first_served(case: Case) -> None:
    check_order(case)


def check_order(case: Case) -> None:
    w, refused, aborted = run(case)
    order = sorted(range(len(case.arrivals)), key=lambda r: (case.arrivals[r].step, r))
    served = [r for r in order if r not in refused and r not in aborted]
    assert [r for r in w.first_admission if r not in aborted] == served


@settings(max_examples=500, deadline=None)
@given(cases)
def test_the_executor_can_follow_the_block_changes(case: Case) -> None:
    """Tables rebuilt from the plans alone cover every row, and no two bound slots ever share a block."""
    w, _, _ = run(case)
    tables: dict[int, list[int]] = {}
    for plan in w.plans:
        for slot in plan.changes.ends:
            del tables[slot]
        for start in plan.changes.starts:
            assert start.slot not in tables
            tables[start.slot] = []
        for slot, block in zip(plan.changes.grown_slots, plan.changes.grown_blocks, strict=True):
            tables[slot].append(block)
        held = [block for table in tables.values() for block in table]
        assert len(held) == len(set(held))
        for batch in plan.batches:
            for slot, position in zip(batch.decode_slots, batch.decode_positions, strict=True):
                assert position < len(tables[slot]) * case.page_tokens
            for chunk in batch.prefills:
                assert chunk.start + chunk.length <= len(tables[chunk.slot]) * case.page_tokens
