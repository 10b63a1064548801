"""The steps that are timed are real ones: all ops, on pages that exist, through the executor that serves."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from engines.apex.attention import Pool
from engines.backends.profile import OpSeconds, StepRig, job_seconds
from engines.core.types import Capabilities, Tier, TierCapacity, Unit
from engines.model.config import load_config
from engines.model.families import open_decoder
from engines.model.weights import random_weights
from harness.profile_beside import Neighbour
from harness.profile_dispatch import measure_dispatch
from harness.profile_grid import Bounds
from harness.profile_loop import measure_overhead
from harness.profile_points import ATTENTION, BETWEEN, FIRST, LAST, TO_ACCEL, TO_HOST, points_of
from harness.profile_run import measure, thread_counts

BLOCKS, HOST_BLOCKS = 24, 4
SMALL = Bounds(max_batch_tokens=64, max_context=64, kv_tokens=BLOCKS * 16, quick=True)


@pytest.fixture(scope="module")
def rig() -> Iterator[StepRig]:
    config = load_config("tiny-1m")
    capabilities = Capabilities(config.layers, TierCapacity(BLOCKS, 16, 1), TierCapacity(HOST_BLOCKS, 64, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = StepRig(open_decoder(config, random_weights(config, 0)), capabilities, SMALL.most_rows + 4, 80)
    yield made
    made.close()
    torch.set_num_threads(threads)


def test_a_step_tells_of_every_kind_of_op(rig: StepRig) -> None:
    took = rig.run(rig.lay_out(3, 40, ((33, 10), (8, 0)), samples=True))
    assert took.keys() == {FIRST, ATTENTION, BETWEEN, LAST}
    assert all(seconds > 0 for seconds in took.values())


def test_moves_go_both_ways(rig: StepRig) -> None:
    took = rig.run(rig.lay_out(2, 16, (), samples=False), rig.moves(50))
    assert {TO_HOST, TO_ACCEL} <= took.keys()
    assert {unit for _, unit in took} == {Unit.GPU, Unit.D2H, Unit.H2D}


def test_pages_are_those_of_the_pool_and_go_round(rig: StepRig) -> None:
    for _ in range(5):
        batch = rig.lay_out(6, 60, ((20, 44),), samples=False)
        rig.run(batch)
        tables = rig.executor._tables
        used = tables.blocks[:7, :4]
        assert (used >= 0).all()
        assert (used < BLOCKS).all()
        assert len(set(used[0])) == 4, "one request's pages are its own"
        assert tables.lengths[:7] == [4] * 7


def test_memory_is_written_before_it_is_read(rig: StepRig) -> None:
    """Untouched memory is one page of zeros in the cache, and reads as fast as nothing else does."""
    for tier in (Tier.ACCEL, Tier.HOST):
        store = rig._stores[tier]
        assert (store.keys.abs().sum(dim=(2, 3, 4)) > 0).all()
        assert (store.values.abs().sum(dim=(2, 3, 4)) > 0).all()


def test_host_attention_runs_in_the_pool(rig: StepRig) -> None:
    with Pool(1) as pool:
        before_s = pool.busy_s
        tickets = rig.host_jobs(2, 100).submit(pool, 5)
        pool.wait(tickets[-1])
        assert job_seconds(pool, tickets) > 0
        assert pool.busy_s > before_s


def test_the_host_attends_for_as_long_as_a_step_is_timed(rig: StepRig) -> None:
    """However wrong the guess of how long that takes."""
    with Pool(1) as pool:
        neighbour = Neighbour(rig, pool, SMALL, SMALL)
        batch = rig.lay_out(3, 40, ((33, 10),), samples=True)
        seen: list[float] = []

        def run() -> OpSeconds:
            begin_s = pool.busy_s
            found = rig.run(batch)
            time.sleep(0.02)
            seen.append(pool.busy_s - begin_s)
            return found

        found = neighbour.beside(run, step_s=1e-9)
        assert found.keys() == {FIRST, ATTENTION, BETWEEN, LAST}
        assert len(seen) > 1, "2 ms of work do not cover 20 ms"


def test_the_accelerator_works_for_as_long_as_host_attention_is_timed(rig: StepRig) -> None:
    with Pool(1) as pool:
        before = rig._step
        assert Neighbour(rig, pool, SMALL, SMALL).host_attention(2, 60) > 0
        assert rig._step > before + 1


def test_a_job_s_dispatch_is_timed(rig: StepRig) -> None:
    with Pool(1) as pool:
        found = measure_dispatch(rig, pool)
    assert 0 < found.submit_s < 1


def test_without_a_core_for_the_host_there_is_nothing_beside(rig: StepRig) -> None:
    alone, beside = measure(rig, [], SMALL, SMALL, True, lambda line: None, rounds=1)
    assert beside is None
    assert not points_of(alone, SMALL).host_attention
    assert thread_counts(0) == []
    assert thread_counts(6)[0] == 1
    assert thread_counts(6)[-1] == 6


def test_rounds_cover_the_grid_and_the_loop_is_timed(rig: StepRig) -> None:
    """The last one here: timing the loop ends the rig's own requests."""
    said: list[str] = []
    with Pool(1) as one, Pool(2) as two:
        alone, beside = measure(rig, [one, two], SMALL, SMALL, True, said.append, rounds=2)
    assert beside is not None
    for samples, threads in ((alone, {1, 2}), (beside, {2})):
        points = points_of(samples, SMALL)
        assert {point.samples for point in points.decode_attention} == {2}
        assert {point.threads for point in points.host_attention} == threads
        assert points.move_to_host
    assert [line.split(",")[0] for line in said] == ["warmed up", "round 1 of 2", "round 2 of 2"]
    overhead = measure_overhead(rig.executor, rig.clock, SMALL)
    assert overhead.gaps[0].count == 1
    assert overhead.step_s > 0
