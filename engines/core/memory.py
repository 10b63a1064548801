"""Bytes of a placement on each tier, and how much KV fits beside them: what is budgeted is what will be allocated."""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from engines.core.packing import even_group, packed_bytes
from engines.core.placement import Part, Placement, PlacementError
from engines.core.units import Tier

TIER_NAMES = {Tier.ACCEL: "accelerator", Tier.HOST: "host", Tier.DISK: "disk"}
KEYS = {Tier.ACCEL: "accel_memory", Tier.HOST: "host_memory", Tier.DISK: "disk"}  # of a budget


class _Kept(Enum):
    """What becomes of a share of a matrix, in the order of `Split`."""

    RESIDENT = 0
    STREAMED = 1
    FROM_DISK = 2
    HOST = 3


@dataclass(frozen=True, slots=True)
class ModelSizes:
    layers: int
    matrices: tuple[tuple[int, int], ...]  # inputs and outputs, in the order of Part
    bytes_per_parameter: int
    kv_bytes_per_token: int  # one layer, keys and values
    kv_heads: int
    head_dim: int
    embedding_bytes: int  # with the table of positions, where there is one
    fixed_bytes: int  # norms, biases and an untied head: always on the accelerator
    tied_head: bool
    head_bytes: int  # what sampling reads: among the fixed bytes, or the embedding where that is the head

    def matrix_bytes(self, part: Part, columns: int, *, packed: bool) -> int:
        inputs, _ = self.widths[part]
        if packed:
            return packed_bytes((columns, inputs), dtype_bytes=self.bytes_per_parameter)
        return inputs * columns * self.bytes_per_parameter

    def layer_bytes(self, *, packed: bool = False) -> int:
        """All four matrices."""
        return sum(self.matrix_bytes(part, self.outputs(part), packed=packed) for part in Part)

    @property
    def widths(self) -> dict[Part, tuple[int, int]]:
        """Inputs and outputs of each matrix."""
        return _widths(self.matrices)

    def outputs(self, part: Part) -> int:
        return self.widths[part][1]

    def kv_bytes(self, *, packed: bool) -> int:
        """Of one token in one layer."""
        if packed:
            group = even_group(self.head_dim)
            return 2 * packed_bytes((self.kv_heads, self.head_dim), group, self.bytes_per_parameter)
        return self.kv_bytes_per_token


@lru_cache(maxsize=64)
def _widths(matrices: tuple[tuple[int, int], ...]) -> dict[Part, tuple[int, int]]:
    """Asked for every op whose bytes are counted, and always the same: read it, never write."""
    return dict(zip(Part, matrices, strict=True))


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of weights on each tier, with the buffers that they are moved through."""

    accel: int
    host: int
    disk: int

    def of(self, tier: Tier) -> int:
        return (self.accel, self.host, self.disk)[tier]


def footprint(placement: Placement, sizes: ModelSizes, devices: int = 1) -> Footprint:
    """`devices`: accelerators that the layers will be spread over, where the placement does not say so yet."""
    devices = max(devices, placement.devices)
    kept = dict.fromkeys(_Kept, 0)
    buffer, read_buffer, scratch = 0, 0, 0
    packed = placement.compressed_weights
    for part in Part:
        moved, read = [], []
        for layer in placement.layers:
            columns = layer.split(part).columns(sizes.outputs(part))
            each = [sizes.matrix_bytes(part, count, packed=packed) for count in columns]
            for what, size in zip(_Kept, each, strict=True):
                kept[what] += size
            may_move = each[_Kept.HOST.value] if placement.replaceable else 0
            moved.append(each[_Kept.STREAMED.value] + each[_Kept.FROM_DISK.value] + may_move)
            read.append(each[_Kept.FROM_DISK.value])
        buffer += _buffers(placement.buffers * devices, moved)
        read_buffer += _buffers(placement.buffers * devices, read)
        if packed:
            scratch = max(scratch, sizes.matrix_bytes(part, sizes.outputs(part), packed=False))
    on_host = placement.embedding is Tier.HOST
    embedding = sizes.embedding_bytes if not on_host or sizes.tied_head else 0
    return Footprint(
        accel=sizes.fixed_bytes + embedding + kept[_Kept.RESIDENT] + buffer + scratch,
        host=on_host * sizes.embedding_bytes + kept[_Kept.STREAMED] + kept[_Kept.HOST] + read_buffer,
        disk=kept[_Kept.FROM_DISK],
    )


def _buffers(most: int, by_layer: list[int]) -> int:
    """For the largest, as many as there are layers to take turns."""
    return min(most, sum(size > 0 for size in by_layer)) * max(by_layer)


@dataclass(frozen=True, slots=True)
class Room:
    """What a policy places into: the budget of each tier, and the model's sizes."""

    sizes: ModelSizes
    accel_bytes: int
    host_bytes: int
    disk_bytes: int
    workspace_bytes: int  # of accel_bytes, what a step's rows need
    page_tokens: int
    most_tokens: int  # of KV: more is never touched, or was not asked for
    max_batch: int
    max_batch_tokens: int
    devices: int = 1  # accelerators that the layers will be spread over; the bytes are those of all of them

    def budget(self, tier: Tier) -> int:
        return (self.accel_bytes, self.host_bytes, self.disk_bytes)[tier]

    def left(self, placement: Placement, tier: Tier) -> int:
        """For KV; negative where the weights alone are too large."""
        taken = footprint(placement, self.sizes, self.devices).of(tier)
        return self.budget(tier) - taken - (self.workspace_bytes if tier is Tier.ACCEL else 0)

    def kv_blocks(self, placement: Placement) -> int:
        """Blocks that fit on every tier that keeps some layers of them; PlacementError where weights do not fit."""
        each = self.page_tokens * self.sizes.kv_bytes(packed=placement.compressed_kv)
        blocks = self.most_tokens // self.page_tokens
        for tier in Tier:
            left, layers = self.left(placement, tier), placement.kv_layers(tier)
            if left < layers * each:
                raise PlacementError(self._short(placement, tier, layers * each - left))
            if layers:
                blocks = min(blocks, left // (layers * each))
        return blocks

    def _short(self, placement: Placement, tier: Tier, missing: int) -> str:
        taken = footprint(placement, self.sizes, self.devices).of(tier)
        kv = f" and one page of KV in {placement.kv_layers(tier)} layers" if placement.kv_layers(tier) else ""
        return (
            f"{gib(taken)} of weights and buffers{kv} do not fit the {TIER_NAMES[tier]}: "
            f"{gib(missing)} are short of {KEYS[tier]} {gib(self.budget(tier))}; "
            f"place less there or raise {KEYS[tier]}"
        )


def gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**27 else f"{size_bytes / 2**20:.1f} MiB"
