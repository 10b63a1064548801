"""The sizes of tensors in groups of 4-bit codes, in whole numbers: budgets are drawn before any tensor is made.

The packing itself is in engines/backends/compression.py, and gives exactly these sizes.
"""

import math
from collections.abc import Sequence

GROUP = 64  # elements that share a low and a step; FlexGen's size (section 5 of its paper)
CODE_BITS = 4


def packed_bytes(shape: Sequence[int], group: int = GROUP, dtype_bytes: int = 2) -> int:
    """Codes, and a low and a step of `dtype_bytes` for every group of the last dimension; its rest is a whole group."""
    *rows, inputs = shape
    groups = -(-inputs // group)
    return math.prod(rows) * groups * (group * CODE_BITS // 8 + 2 * dtype_bytes)


def even_group(inputs: int, group: int = GROUP) -> int:
    """The smallest group that covers `inputs` in as few groups as `group` does: heads of 32, 80 or 96 fill theirs."""
    groups = -(-inputs // group)
    share = -(-inputs // groups)
    return share + share % 2
