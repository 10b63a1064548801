"""The life of a pool: many jobs in flight, tensors kept alive, every way to end, and every way to use it wrongly."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch

from engines.apex import attention
from engines.apex.attention import Pool, PoolError
from tests.native import reference


def submit(pool: Pool, batch: reference.Batch, out: torch.Tensor) -> int:
    tables = (batch.page_table, batch.context_lens)
    return attention.submit_decode_attention(
        pool, batch.query, batch.key_pages, batch.value_pages, *tables, out, batch.scale
    )


ROOM = 256  # jobs that may be in flight


def some_core() -> int:
    return min(os.sched_getaffinity(0))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spin_us", [0, 200])
def test_more_jobs_in_flight_than_there_is_room_for(threads: int, spin_us: int) -> None:
    batches = [reference.random_batch((40 * n + 1, 7), seed=n) for n in range(6)]
    expected = [batch.attend()[0] for batch in batches]
    with Pool(threads, spin_us=spin_us) as pool:
        outputs = [torch.empty_like(batches[n % 6].query) for n in range(2 * ROOM)]
        tickets = [submit(pool, batches[n % 6], out) for n, out in enumerate(outputs)]
        assert tickets == list(range(2 * ROOM))
        for ticket in tickets:  # of two threads one may end the last job while the other still works on an earlier one
            pool.wait(ticket)
        assert all(pool.done(ticket) for ticket in tickets)
    for n, out in enumerate(outputs):
        assert torch.equal(out, expected[n % 6])


def test_a_pinned_pool_and_its_properties() -> None:
    batch = reference.random_batch((300,))
    with Pool(1, cores=[some_core()]) as pool:
        assert pool.threads == 1
        before_s = time.monotonic()
        ticket = submit(pool, batch, torch.empty_like(batch.query))
        pool.wait(ticket)
        began_s, ended_s = pool.span(ticket)
        assert before_s <= began_s <= ended_s <= time.monotonic()
        assert pool.busy_s == pytest.approx(ended_s - began_s, abs=1e-6)
        assert not pool.closed
    assert pool.closed


def slow_batch() -> reference.Batch:
    """Some ten milliseconds of work for one thread without vector instructions."""
    return reference.random_batch((1000,) * 4, q_heads=32, kv_heads=4, head_dim=128)


def test_done_turns_true_without_waiting() -> None:
    batch = slow_batch()
    out = torch.empty_like(batch.query)
    with Pool(1) as pool, reference.isa("scalar"):
        ticket = submit(pool, batch, out)
        assert not pool.done(ticket)
        deadline_s = time.monotonic() + 60
        while not pool.done(ticket):
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        assert torch.equal(out, batch.attend()[0])


def test_tables_may_change_right_after_submission() -> None:
    batch = reference.random_batch((500, 300), q_heads=16, kv_heads=16)
    expected, _ = batch.attend()
    out = torch.empty_like(batch.query)
    with Pool(2) as pool:
        ticket = submit(pool, batch, out)
        batch.page_table.fill_(-1)
        batch.context_lens.fill_(1 << 30)
        pool.wait(ticket)
    assert torch.equal(out, expected)


def test_tensors_live_until_the_job_is_done_and_no_longer() -> None:
    batch = reference.random_batch((600,))
    keys = batch.key_pages.clone()
    alive = weakref.ref(keys)
    out = torch.empty_like(batch.query)
    with Pool(1) as pool:
        tables = (batch.page_table, batch.context_lens)
        ticket = attention.submit_decode_attention(
            pool, batch.query, keys, batch.value_pages, *tables, out, batch.scale
        )
        del keys
        gc.collect()
        assert alive() is not None
        pool.wait(ticket)
        assert alive() is None
    assert torch.equal(out, batch.attend()[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_pool_may_go_with_work_in_flight(threads: int) -> None:
    batch = reference.random_batch((700,) * 4, q_heads=16, kv_heads=16)
    expected, _ = batch.attend()
    outputs = [torch.empty_like(batch.query) for _ in range(5)]
    pool = Pool(threads)
    for out in outputs:
        submit(pool, batch, out)
    del pool
    gc.collect()
    assert all(torch.equal(out, expected) for out in outputs)


def test_a_closed_pool() -> None:
    batch = reference.random_batch((300,))
    out = torch.empty_like(batch.query)
    pool = Pool(2)
    ticket = submit(pool, batch, out)
    pool.close()
    pool.close()
    assert pool.done(ticket)
    pool.wait(ticket)
    assert torch.equal(out, batch.attend()[0])
    with pytest.raises(PoolError, match="closed"):
        submit(pool, batch, out)
    with pytest.raises(RuntimeError, match="closed"):
        batch.attend(pool)


def test_unknown_tickets() -> None:
    with Pool(1) as pool:
        for ticket in (0, 7, -1):
            with pytest.raises(ValueError, match="never given out"):
                pool.done(ticket)
            with pytest.raises(ValueError, match="never given out"):
                pool.wait(ticket)
        with pytest.raises(TypeError):
            pool.wait("0")  # type: ignore[arg-type]


def test_times_are_kept_for_the_last_jobs_only() -> None:
    batch = reference.random_batch((3,))
    out = torch.empty_like(batch.query)
    with Pool(1) as pool:
        tickets = [submit(pool, batch, out) for _ in range(2 * ROOM)]
        pool.wait(tickets[-1])
        assert pool.span(tickets[-1])[1] > 0
        with pytest.raises(ValueError, match="no longer kept"):
            pool.span(tickets[0])


@pytest.mark.parametrize(
    ("threads", "cores", "spin_us", "message"),
    [
        (0, None, 50, "threads: expected 1.."),
        (-3, None, 50, "threads: expected 1.."),
        (10**6, None, 50, "threads: expected 1.."),
        (2, [0], 50, "cores: expected one per thread"),
        (2, [0, 0], 50, "cores: 0 is named twice"),
        (1, [-1], 50, "cores: -1 is no core number"),
        (1, None, -1, "spin_us: expected 0.."),
    ],
)
def test_wrong_pools(threads: int, cores: list[int] | None, spin_us: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pool(threads, cores, spin_us)


def test_a_core_that_does_not_exist() -> None:
    with pytest.raises(PoolError, match="cores"):
        Pool(2, [some_core(), 1000])
    with pytest.raises(PoolError, match="cores"):
        Pool(1, [2**31 - 1])


def test_waiting_lets_other_python_threads_run() -> None:
    batch = slow_batch()
    out = torch.empty_like(batch.query)
    go = threading.Event()
    ran_at_s: list[float] = []

    def run() -> None:
        go.wait()
        ran_at_s.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    with Pool(1) as pool, reference.isa("scalar"):
        ticket = submit(pool, batch, out)
        go.set()
        pool.wait(ticket)
        waited_until_s = time.monotonic()
        thread.join()
    assert ran_at_s[0] <= waited_until_s


def test_several_python_threads_share_a_pool() -> None:
    batches = [reference.random_batch((100 * n + 50,), seed=n) for n in range(4)]
    expected = [batch.attend()[0] for batch in batches]
    failures: list[int] = []
    with Pool(2, spin_us=0) as pool:

        def use(n: int) -> None:
            for _ in range(50):
                out, _ = batches[n].attend(pool)
                if not torch.equal(out, expected[n]):
                    failures.append(n)

        threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_closing_while_others_submit() -> None:
    """Every job that got a ticket is done; every other one raised."""
    batch = reference.random_batch((200,))
    expected, _ = batch.attend()
    pool = Pool(2, spin_us=0)
    wrong: list[bool] = []

    def use() -> None:
        while True:
            try:
                out, _ = batch.attend(pool)
            except PoolError:
                return
            if not torch.equal(out, expected):
                wrong.append(True)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    pool.close()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert not wrong


@pytest.mark.parametrize("spin_us", [0, 1000])
def test_a_starved_pool_ends_all_the_same(spin_us: int) -> None:
    """More threads than cores, and other processes on all of them."""
    cores = len(os.sched_getaffinity(0))
    batch = reference.random_batch((300, 40, 7))
    expected, _ = batch.attend()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * cores)]
    try:
        with Pool(4 * cores, spin_us=spin_us) as pool:
            for _ in range(20):
                assert torch.equal(batch.attend(pool)[0], expected)
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_idle_threads_sleep() -> None:
    with Pool(2, spin_us=1000) as pool:
        batch = reference.random_batch((3,))
        batch.attend(pool)
        time.sleep(0.05)
        before_s = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before_s < 0.1


def test_pools_come_and_go() -> None:
    batch = reference.random_batch((33,))
    expected, _ = batch.attend()
    for _ in range(50):
        with Pool(2, spin_us=0) as pool:
            assert torch.equal(batch.attend(pool)[0], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_so() -> None:
    batch = reference.random_batch((5,))
    with Pool(1, spin_us=0) as pool:
        child = os.fork()
        if child == 0:
            try:
                batch.attend(pool)
            except PoolError as error:
                os._exit(0 if "parent" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert torch.equal(batch.attend(pool)[0], batch.attend()[0])
