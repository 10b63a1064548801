"""The matrices of a model whose columns are shared out: resident, in the host's memory, on disk; and the buffers that
moved ones pass through.

What is computed on the host and what is moved over the link are two uses of one copy in the host's memory, so that a
placement may be changed between two steps. Where it never is, the host's share is packed for speed instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engines.backends.compression import Packed, pack, unpack
from engines.backends.disk_store import DiskStore
from engines.core.placement import Columns, Part, Placement, PlacementError, Split
from engines.core.units import Tier
from engines.model.decoder import RowsToRows
from engines.model.layers import Linear

Weight = Tensor | Packed


@dataclass(slots=True)
class _Matrix:
    """Columns in this order: resident, streamed, from disk, the host's."""

    outputs: int
    inputs: int
    split: Split
    bias: Tensor | None  # on the accelerator
    host_bias: Tensor | None
    resident: Linear | Packed | None = None
    on_host: Weight | None = None  # streamed columns, then the host's unless those are packed
    computed: Linear | None = None  # the host's columns, packed
    on_disk: str = ""  # name of what is there; empty where nothing is
    slot: int = 0  # which buffer it is moved through
    read_slot: int = 0
    accel_bytes: int = 0
    host_bytes: int = 0
    disk_bytes: int = 0

    @property
    def columns(self) -> Columns:
        return self.split.columns(self.outputs)


class PlacedWeights:
    """A factory of a model's matrices (`linear`), and everything that happens to them afterwards."""

    def __init__(self, placement: Placement, device: torch.device, disk: DiskStore | None) -> None:
        self.placement = placement
        self._device = device
        self._dtype = torch.float32
        self._disk = disk
        self._matrices: dict[tuple[int, Part], _Matrix] = {}
        self._buffers: dict[Part, list[Weight]] = {}
        self._read_buffers: dict[Part, list[Weight]] = {}
        self._scratch: Tensor | None = None  # a compressed matrix as floats

    # --- taking weights over -----------------------------------------------------------------------------------------

    def linear(self, name: str, weight: Tensor, bias: Tensor | None) -> RowsToRows:
        """A model's factory: the matrix goes to its places, and nobody may call what stands in for it."""
        _, layer, part = name.split(".")
        index, which = int(layer), Part(part)
        split = self.placement.layers[index].split(which)
        self._matrices[index, which] = self._taken(name, weight, bias, split)
        return _absent

    def _taken(self, name: str, weight: Tensor, bias: Tensor | None, split: Split) -> _Matrix:
        self._dtype = weight.dtype
        resident, streamed, read, host = weight.split_with_sizes(list(split.columns(len(weight))))
        packs = self.placement.compressed_weights
        if packs and len(host):
            raise PlacementError(
                "compressed weights are unpacked on the accelerator; leave the host none to compute with"
            )
        matrix = _Matrix(
            outputs=len(weight),
            inputs=weight.shape[1],
            split=split,
            bias=None if bias is None else bias.to(self._device),
            host_bias=None if bias is None else bias.cpu(),
        )
        if len(resident):
            own = (resident if len(resident) == len(weight) else resident.clone()).to(self._device)
            packed = pack(own) if packs else None
            matrix.resident = Linear(own) if packed is None else packed
            matrix.accel_bytes = own.nbytes if packed is None else packed.nbytes
        if self.placement.replaceable and len(streamed) + len(host):
            matrix.on_host = self._home(weight[len(resident) :])
        elif len(streamed):
            matrix.on_host = pack(streamed.cpu()) if packs else self._home(streamed)
        matrix.host_bytes = 0 if matrix.on_host is None else matrix.on_host.nbytes
        if len(host) and not self.placement.replaceable:
            matrix.computed = Linear(host.cpu().clone(), None if bias is None else bias[-len(host) :].cpu())
            matrix.host_bytes += host.nbytes
        if len(read):
            self._to_disk(name, matrix, read)
        if packs:
            self._widen_scratch(weight)
        return matrix

    def _home(self, weight: Tensor) -> Tensor:
        """A copy in the host's memory, of its own: the tensor it is cut from goes."""
        copied = weight.cpu().clone()
        return copied.pin_memory() if self._device.type == "cuda" else copied

    def _to_disk(self, name: str, matrix: _Matrix, weight: Tensor) -> None:
        if self._disk is None:
            raise PlacementError("weights are placed on disk, and there is no folder for them")
        matrix.on_disk = name
        if self.placement.compressed_weights:
            packed = pack(weight.cpu())
            self._disk.write(name, dict(zip(("codes", "low", "step"), packed.tensors(), strict=True)))
            matrix.disk_bytes = packed.nbytes
        else:
            self._disk.write(name, {"weight": weight.cpu().clone()})
            matrix.disk_bytes = weight.nbytes

    def _widen_scratch(self, weight: Tensor) -> None:
        if self._scratch is None or self._scratch.numel() < weight.numel():
            self._scratch = torch.empty(weight.numel(), dtype=weight.dtype, device=self._device)

    def complete(self) -> None:
        """All matrices are there: make the buffers, and give each moved one its place in them."""
        for part in Part:
            matrices = self._of(part)
            moved = [matrix for matrix in matrices if self._most_moved(matrix)]
            if not moved:
                continue
            widest = max(moved, key=self._most_moved)
            self._buffers[part] = self._room(widest, self._most_moved(widest), self._device, len(moved))
            read = [matrix for matrix in moved if matrix.on_disk]
            if read:
                deepest = max(read, key=lambda matrix: matrix.columns.from_disk)
                host = torch.device("cpu")
                self._read_buffers[part] = self._room(deepest, deepest.columns.from_disk, host, len(read))
        self._deal_slots()

    def _of(self, part: Part) -> list[_Matrix]:
        """From the first layer to the last."""
        return [self._matrices[layer, part] for layer in range(len(self.placement.layers))]

    def _most_moved(self, matrix: _Matrix) -> int:
        """Columns that may ever have to be in a buffer."""
        columns = matrix.columns
        return columns.streamed + columns.from_disk + (columns.host if self.placement.replaceable else 0)

    def _room(self, like: _Matrix, columns: int, device: torch.device, users: int) -> list[Weight]:
        sample = like.on_host if like.on_host is not None else self._mapped(like)
        rooms: list[Weight] = []
        for _ in range(min(self.placement.buffers, users)):
            empty = torch.zeros(columns, like.inputs, dtype=sample.dtype, device=device)
            rooms.append(pack(empty) if isinstance(sample, Packed) else empty)
        return rooms

    def _deal_slots(self) -> None:
        """In turns, in the order in which they are used: the lowering counts alike (placed.py)."""
        for part in Part:
            moved = [matrix for matrix in self._of(part) if matrix.split.moved]
            for count, matrix in enumerate(moved):
                matrix.slot = count % self.placement.buffers
            for count, matrix in enumerate([matrix for matrix in moved if matrix.on_disk]):
                matrix.read_slot = count % self.placement.buffers

    @property
    def nbytes(self) -> dict[Tier, int]:
        """What is held on each tier, buffers included."""
        held = dict.fromkeys(Tier, 0)
        for matrix in self._matrices.values():
            held[Tier.ACCEL] += matrix.accel_bytes
            held[Tier.HOST] += matrix.host_bytes
        held[Tier.ACCEL] += sum(buffer.nbytes for buffers in self._buffers.values() for buffer in buffers)
        held[Tier.ACCEL] += 0 if self._scratch is None else self._scratch.nbytes
        held[Tier.HOST] += sum(buffer.nbytes for buffers in self._read_buffers.values() for buffer in buffers)
        held[Tier.DISK] = sum(matrix.disk_bytes for matrix in self._matrices.values())
        return held

    def warm_up(self, row_counts: Sequence[int]) -> None:
        """Have oneDNN generate its code for so many rows now: once for every shape of matrix."""
        seen: set[tuple[int, int]] = set()
        for matrix in self._matrices.values():
            for linear in (matrix.resident, matrix.computed):
                if isinstance(linear, Linear) and linear.packed and (linear.outputs, linear.inputs) not in seen:
                    seen.add((linear.outputs, linear.inputs))
                    for rows in row_counts:
                        linear(torch.zeros(rows, linear.inputs, dtype=self._dtype))

    # --- a step ------------------------------------------------------------------------------------------------------

    def replace(self, placement: Placement) -> None:
        """From now on: only between what the host computes and what is moved, which are the same bytes."""
        if not self.placement.replaceable:
            raise PlacementError("this placement is for good")
        for (layer, part), matrix in self._matrices.items():
            split = placement.layers[layer].split(part)
            if split.columns(matrix.outputs).resident != matrix.columns.resident or split.from_disk:
                raise PlacementError(f"layer {layer} {part.value}: what is resident stays where it is")
            matrix.split = split
        self._deal_slots()  # who is moved has changed, so who uses which buffer has
        self.placement = placement

    def read(self, layer: int, part: Part) -> None:
        """From disk into the host's memory."""
        matrix = self._matrices[layer, part]
        _copy(_cut(self._read_buffers[part][matrix.read_slot], 0, matrix.columns.from_disk), self._mapped(matrix))

    def load(self, layer: int, part: Part) -> None:
        """What moves of a matrix, from the host's memory into its buffer."""
        matrix = self._matrices[layer, part]
        buffer = self._buffers[part][matrix.slot]
        streamed, read = matrix.columns.streamed, matrix.columns.from_disk
        if streamed:
            assert matrix.on_host is not None
            _copy(_cut(buffer, 0, streamed), _cut(matrix.on_host, 0, streamed))
        if read:
            _copy(_cut(buffer, streamed, streamed + read), _cut(self._read_buffers[part][matrix.read_slot], 0, read))

    def on_accelerator(self, layer: int, part: Part, rows: Tensor) -> Tensor:
        """rows [rows, inputs] -> the columns that the accelerator computes."""
        matrix = self._matrices[layer, part]
        resident, streamed, read, _ = matrix.columns
        made = []
        if matrix.resident is not None:
            made.append(self._product(matrix.resident, rows))
        if streamed + read:
            made.append(self._product(_cut(self._buffers[part][matrix.slot], 0, streamed + read), rows))
        whole = made[0] if len(made) == 1 else torch.cat(made, dim=1)
        return whole if matrix.bias is None else whole + matrix.bias[: resident + streamed + read]

    def on_host(self, layer: int, part: Part, rows: Tensor) -> Tensor:
        """rows [rows, inputs] on the host -> the columns that are computed there."""
        matrix = self._matrices[layer, part]
        if matrix.computed is not None:
            return matrix.computed(rows)
        resident, streamed, _, host = matrix.columns
        assert isinstance(matrix.on_host, Tensor)
        bias = None if matrix.host_bias is None else matrix.host_bias[resident + streamed :]
        return functional.linear(rows, matrix.on_host[streamed : streamed + host], bias)

    def _product(self, weight: Linear | Weight, rows: Tensor) -> Tensor:
        if isinstance(weight, Linear):
            return weight(rows)
        if isinstance(weight, Packed):
            assert self._scratch is not None
            floats = self._scratch[: weight.shape[0] * weight.shape[1]].view(weight.shape)
            weight = unpack(weight, out=floats)
        return functional.linear(rows, weight)

    def _mapped(self, matrix: _Matrix) -> Weight:
        assert self._disk is not None
        tensors = self._disk.read(matrix.on_disk)
        if "weight" in tensors:
            return tensors["weight"]
        codes, low, step = (tensors[key] for key in ("codes", "low", "step"))
        return Packed(codes, low, step, (codes.shape[0], matrix.inputs))


def _absent(rows: Tensor) -> Tensor:
    raise PlacementError("this matrix is placed: the executor multiplies with it, not the model")


def _cut(weight: Weight, begin: int, end: int) -> Weight:
    return weight.rows(begin, end) if isinstance(weight, Packed) else weight[begin:end]


def _copy(target: Weight, source: Weight) -> None:
    if isinstance(target, Packed):
        assert isinstance(source, Packed)
        target.copy_(source, non_blocking=True)
    else:
        assert isinstance(source, Tensor)
        target[: len(source)].copy_(source, non_blocking=True)
