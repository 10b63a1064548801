"""Host memory in large pages of the machine: K and V are read at the memory's limit, and a miss of the address cache
for every 4 KiB costs several percent of it.
"""

import math
import mmap
from collections.abc import Sequence

import torch

HUGE_BYTES = 2**21


def large_pages(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of zeros. Where the system has no large pages to give, or where they gain nothing, an ordinary one."""
    size = math.prod(shape) * dtype.itemsize
    if size < HUGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(tuple(shape), dtype=dtype)
    # Private: shared anonymous memory, Python's default, is a file to the system and gets small pages. It is all zeros.
    try:
        memory = mmap.mmap(-1, size + HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"the system refuses {size} bytes: {error.strerror}") from None
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    first = -whole.data_ptr() % HUGE_BYTES
    return whole[first : first + size].view(dtype).view(tuple(shape))
