"""Host memory for K and V: zeros of the shape asked for, in large pages where the system gives them."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import pytest
import torch

from engines.apex.memory import HUGE_BYTES, large_pages

MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (7, 11, 13), (5, 2**19, 3), (0, 4)])
def test_zeros_of_a_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    found = large_pages(shape, dtype)
    assert (found.shape, found.dtype) == (shape, dtype)
    assert found.is_contiguous()
    assert not found.any()
    found.fill_(1.0)
    assert bool((found == 1.0).all())


def test_memory_lives_as_long_as_a_view_of_it() -> None:
    view = large_pages((HUGE_BYTES,), torch.float32)[1000:]
    gc.collect()
    view.fill_(3.0)
    assert float(view.sum()) == 3.0 * len(view)


@pytest.mark.skipif(not MODE.exists() or "[never]" in MODE.read_text(), reason="this system gives no large pages")
@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this Python cannot ask for large pages")
def test_pages_are_large_where_the_system_gives_them() -> None:
    before = _huge_bytes()
    memory = large_pages((16 * HUGE_BYTES,), torch.float16)
    memory.fill_(1.0)
    assert memory.data_ptr() % HUGE_BYTES == 0
    assert _huge_bytes() - before >= 16 * HUGE_BYTES  # half of it, should the system be short of them


def _huge_bytes() -> int:
    """Large pages of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("AnonHugePages:")]
    return int(line.split()[1]) * 1024


def test_more_than_the_system_has_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="refuses"):
        large_pages((2**60,), torch.float16)
