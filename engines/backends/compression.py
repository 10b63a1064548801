"""Tensors in 4 bit: groups along the last dimension, each a low, a step, and a code of 0 to 15 per element.

FlexGen's group-wise quantisation (section 5 of its paper): from the smallest to the largest element of a group, in
fifteen equal steps. FlexGen groups weights along their outputs, here it is along the inputs, so that rows of a matrix
can be unpacked, or cross a link, without the others. Storage, not arithmetic: what is packed is unpacked before anybody
computes with it.

Low and step have the tensor's own dtype. The low is then an element of the group, exactly; nothing overflows that the
tensor itself could hold; and 16-bit tensors, the ones worth packing, pay 4 bytes a group for it. An element comes back
within half a step of its group, plus its dtype's own rounding; a constant group comes back exactly. A group that holds
an infinity or NaN comes back without a finite element, so that it is noticed; one that spans more than float32 can
express is not packed faithfully.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engines.core.packing import GROUP, packed_bytes

__all__ = ["GROUP", "Packed", "pack", "packed_bytes", "unpack"]

LEVELS = 15
# Packing and unpacking need some temporary memory per element, so they go through a big matrix piece by piece: large
# enough that starting an operation costs nothing beside running it, small beside any matrix that is worth packing.
PIECE_ELEMENTS = 2**20

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Packed:
    """Byte j of a group holds elements j (low half) and j + group / 2 (high half): both unpack to runs of memory."""

    codes: Tensor  # [..., groups * group / 2] uint8
    low: Tensor  # [..., groups] in the tensor's dtype
    step: Tensor  # the same
    shape: tuple[int, ...]  # of the tensor; its last dimension may end within the last group

    @property
    def dtype(self) -> torch.dtype:
        return self.low.dtype

    @property
    def group(self) -> int:
        return 2 * self.codes.shape[-1] // self.low.shape[-1]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What has to cross a link: in this order, each contiguous when the whole is."""
        return self.codes, self.low, self.step

    def rows(self, begin: int, end: int) -> Self:
        """A view of rows `begin` to `end` of the first dimension: of a weight, of its outputs."""
        codes, low, step = (tensor[begin:end] for tensor in self.tensors())
        return type(self)(codes, low, step, (codes.shape[0], *self.shape[1:]))

    def empty_like(self, device: torch.device | None = None, pin: bool = False) -> Self:
        """Room of the same sizes, elsewhere if need be: a staging buffer."""
        codes, low, step = (torch.empty_like(tensor, device=device, pin_memory=pin) for tensor in self.tensors())
        return type(self)(codes, low, step, self.shape)

    def copy_(self, other: "Packed", non_blocking: bool = False) -> Self:
        """`copy_` of a tensor would repeat a smaller one, or convert its dtype; of packed ones that is a mistake."""
        if (self.shape, self.dtype, self.group) != (other.shape, other.dtype, other.group):
            raise ValueError(f"{_kind(other)} cannot be copied into {_kind(self)}")
        for own, source in zip(self.tensors(), other.tensors(), strict=True):
            own.copy_(source, non_blocking=non_blocking)
        return self


def pack(tensor: Tensor, group: int = GROUP) -> Packed:
    """tensor [..., inputs] of any float dtype, on any device; the result is on the same one."""
    if not tensor.is_floating_point():
        raise TypeError(f"only floats are packed, not {tensor.dtype}")
    if group < 2 or group % 2:
        raise ValueError(f"a group must have an even number of elements, not {group}: two share a byte")
    if not tensor.shape or not tensor.shape[-1]:
        raise ValueError(f"a tensor of shape {list(tensor.shape)} has no elements in a row to be grouped")
    *outer, inputs = tensor.shape
    groups = -(-inputs // group)
    rows = tensor.detach().reshape(-1, inputs)
    codes = torch.empty(len(rows), groups, group // 2, dtype=torch.uint8, device=tensor.device)
    low, step = (torch.empty(len(rows), groups, dtype=tensor.dtype, device=tensor.device) for _ in range(2))
    for piece in _pieces(len(rows), groups * group):
        _pack_rows(_whole_groups(rows[piece], group), codes[piece], low[piece], step[piece])
    low, step = (each.view(*outer, groups) for each in (low, step))
    return Packed(codes.view(*outer, groups * group // 2), low, step, tuple(tensor.shape))


def unpack(packed: Packed, out: Tensor | None = None) -> Tensor:
    """Into `out`, of any strides, or into a new tensor; low + code * step is rounded to the dtype once."""
    if out is None:
        out = torch.empty(packed.shape, dtype=packed.dtype, device=packed.codes.device)
    if out.shape != packed.shape or out.dtype != packed.dtype:
        raise ValueError(f"{_kind(packed)} cannot be unpacked into {list(out.shape)} of {out.dtype}")
    flat = len(packed.shape) == 1
    parts = [tensor[None] if flat else tensor for tensor in (*packed.tensors(), out)]
    row_elements = parts[0][:1].numel() * 2
    for piece in _pieces(len(parts[0]), row_elements):
        codes, low, step, wanted = (part[piece] for part in parts)
        _unpack_rows(codes, low, step, packed.group, wanted)
    return out


def _kind(packed: Packed) -> str:
    return f"{list(packed.shape)} of {packed.dtype} in groups of {packed.group}"


def _pieces(rows: int, row_elements: int) -> Iterator[slice]:
    size = max(1, PIECE_ELEMENTS // max(1, row_elements))
    return (slice(first, min(first + size, rows)) for first in range(0, rows, size))


def _whole_groups(rows: Tensor, group: int) -> Tensor:
    """[rows, inputs] -> [rows, groups, group]; the last element is repeated, which no low and no step notices."""
    if missing := -rows.shape[1] % group:
        rows = torch.cat((rows, rows[:, -1:].expand(-1, missing)), dim=1)
    return rows.view(len(rows), -1, group)


def _pack_rows(groups: Tensor, codes: Tensor, low: Tensor, step: Tensor) -> None:
    """groups [rows, groups, group]; codes [rows, groups, group / 2], low and step [rows, groups] are written."""
    lowest, highest = torch.aminmax(groups, dim=-1)
    low.copy_(lowest)
    step.copy_(_steps(lowest, highest))
    exact = torch.promote_types(groups.dtype, torch.float32)
    divisor = step.to(exact).masked_fill(step == 0, 1)  # of a constant group every code is 0
    levels = groups.to(exact) - lowest.to(exact)[..., None]
    levels = levels.div_(divisor[..., None]).round_().clamp_(0, LEVELS).to(torch.uint8)
    first, second = levels.chunk(2, dim=-1)
    torch.bitwise_or(first, second << 4, out=codes)


def _steps(lowest: Tensor, highest: Tensor) -> Tensor:
    """A fifteenth of the range, rounded down to the dtype, or up where down would miss the top by over half a step.

    Down, because steps that pass the top may reach infinity; in bfloat16 that misses up to 0.12 steps. Up is for
    steps of a few of the smallest numbers there are. The bits of positive floats are ordered like the floats.
    """
    exact = (highest.double() - lowest.double()) / LEVELS
    step = exact.to(lowest.dtype)
    bits = step.view(_BITS[step.dtype.itemsize])
    bits.sub_((step.double() > exact).to(bits.dtype))
    bits.add_((exact - step.double()) * LEVELS > step.double() / 2)
    return step


def _unpack_rows(codes: Tensor, low: Tensor, step: Tensor, group: int, out: Tensor) -> None:
    """out [..., inputs] is written: its whole groups in place, a last one that ends early by way of a whole one."""
    whole, rest = divmod(out.shape[-1], group)
    half, edge = group // 2, whole * group
    if whole:
        _unpack_groups(codes[..., : edge // 2], low[..., :whole], step[..., :whole], half, out[..., :edge])
    if rest:
        last = torch.empty(*out.shape[:-1], group, dtype=out.dtype, device=out.device)
        _unpack_groups(codes[..., edge // 2 :], low[..., whole:], step[..., whole:], half, last)
        out[..., edge:] = last[..., :rest]


def _unpack_groups(codes: Tensor, low: Tensor, step: Tensor, half: int, out: Tensor) -> None:
    """addcmul computes in float32 at least, and rounds once."""
    pairs = codes.view(*low.shape, half)
    first, second = out.view(*low.shape, 2, half).unbind(-2)
    torch.addcmul(low[..., None], (pairs & LEVELS).to(out.dtype), step[..., None], out=first)
    torch.addcmul(low[..., None], (pairs >> 4).to(out.dtype), step[..., None], out=second)
