"""What a layer is made of: its matrix products, and the norms, rotary positions and activations between them.

Sizes only. What they take is roofline.py's.
"""

from collections.abc import Mapping, Sequence

from engines.core.placement import Part

Shape = tuple[float, float]  # inputs and outputs of a matrix
SMALL_OPS_PER_PART = 2


def in_tiles(rows: int, tile_rows: int) -> int:
    """How many rows a kernel computes: whole tiles. In the first one rows that are not there cost little, because its
    time is that of the weights.
    """
    return rows if rows <= tile_rows else -(-rows // tile_rows) * tile_rows


def values_between(matrices: Sequence[tuple[int, int]]) -> Mapping[Part, int]:
    """What the small ops beside a product read and write for each row, `SMALL_OPS_PER_PART` of them: before QKV a norm
    that adds the residual and after it rotary positions; before UP such a norm and after it the activation.
    """
    if len(matrices) != len(Part):
        return {}
    widths = dict(zip(Part, matrices, strict=True))
    (hidden, qkv), queries, (_, up), ffn = (
        widths[Part.QKV],
        widths[Part.OUTPUT][0],
        widths[Part.UP],
        widths[Part.DOWN][0],
    )
    norm, rotated = 4 * hidden, (queries + qkv) // 2  # queries and keys: half of the values are the keys
    return {Part.QKV: norm + 2 * rotated, Part.UP: norm + up + ffn}
