"""The stream that kernels are measured against, and the times of a job: that they measure what they say."""

from __future__ import annotations

import os

import pytest
import torch

from engines.apex import _cpu, attention
from tests.native import reference

CORES = sorted(os.sched_getaffinity(0))
PATTERNS = ("forward", "ahead", "four_parts")
MEMORY = torch.zeros(2**22)


@pytest.mark.parametrize("isa", attention.available_isas())
@pytest.mark.parametrize("pattern", PATTERNS)
def test_reading_takes_time_and_tells_how_much_was_read(isa: str, pattern: str) -> None:
    with reference.isa(isa):
        for cores in (CORES[:1], CORES):
            seconds, read = _cpu.time_reading(MEMORY, pattern, cores)
            assert seconds > 0
            assert 0 <= MEMORY.nbytes - read < 4096 * len(cores)


def test_twice_the_memory_takes_longer() -> None:
    """Nothing is left out by a compiler that sees that nobody needs it. The least of several counts."""
    little = min(_cpu.time_reading(MEMORY[: 2**18], "forward", CORES[:1])[0] for _ in range(5))
    much = min(_cpu.time_reading(MEMORY, "forward", CORES[:1])[0] for _ in range(5))
    assert much > 2 * little, "sixteen times as much"


@pytest.mark.parametrize(
    ("memory", "pattern", "cores", "error", "message"),
    [
        (torch.zeros(4, 4), "forward", [0], ValueError, "memory"),
        (torch.zeros(8)[::2], "forward", [0], ValueError, "memory"),
        (torch.zeros(8, dtype=torch.float64), "forward", [0], TypeError, "memory"),
        (torch.zeros(8), "backward", [0], ValueError, "pattern"),
        (torch.zeros(8), "forward", [], ValueError, "cores"),
        (torch.zeros(8), "forward", [-1], ValueError, "cores"),
        (torch.zeros(8), "forward", [0, 0], ValueError, "cores"),
    ],
)
def test_wrong_readings(
    memory: torch.Tensor, pattern: str, cores: list[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _cpu.time_reading(memory, pattern, cores)


def test_reading_on_a_core_that_does_not_exist() -> None:
    with pytest.raises(attention.PoolError, match="cores"):
        _cpu.time_reading(torch.zeros(2**16), "forward", [CORES[0], 1000])


@pytest.mark.parametrize("pause_us", [0, 300])
def test_times_of_jobs(pause_us: int) -> None:
    batch = reference.random_batch([3, 5])
    out = torch.empty_like(batch.query)
    call = (batch.query, batch.key_pages, batch.value_pages, batch.page_table, batch.context_lens, out, batch.scale)
    with attention.Pool(1) as pool:
        times = pool.time_dispatch(*call, 20, pause_us)
        assert len(times) == 20
        for submit_s, wake_s, return_s in times:
            assert 0 < submit_s < 1
            assert -1 < wake_s < 1
            assert -1 < return_s < 1
        with pytest.raises(ValueError, match="repeats"):
            pool.time_dispatch(*call, 0)
        with pytest.raises(ValueError, match="pause_us"):
            pool.time_dispatch(*call, 1, -1)
    torch.testing.assert_close(out.double(), reference.attend(batch)[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(attention.PoolError, match="closed"):
        pool.time_dispatch(*call, 1)
