"""Bytes of a placement on each tier, and how much KV fits beside them: what is budgeted is what will be allocated."""

from dataclasses import dataclass
from functools import lru_cache

from engines.core.packing import even_group, packed_bytes
from engines.core.placement import Part, Placement, PlacementError, Split
from engines.core.units import Tier

TIER_NAMES = {Tier.ACCEL: "accelerator", Tier.HOST: "host", Tier.DISK: "disk"}
KEYS = {Tier.ACCEL: "accel_memory", Tier.HOST: "host_memory", Tier.DISK: "disk"}  # of a budget


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


@lru_cache(maxsize=256)
def footprint(placement: Placement, sizes: ModelSizes, devices: int = 1) -> Footprint:
    """Planners ask for it of every tier of every placement they try, which is why it is kept. `devices`: accelerators
    that the layers will be spread over, where the placement does not say so yet.
    """
    buffers = placement.buffers * max(devices, placement.devices)
    resident = streamed = from_disk = on_host = 0
    buffer, read_buffer, scratch = 0, 0, 0
    packed = placement.compressed_weights
    for part in Part:
        layers = _bytes_by_layer(placement, sizes, part)
        kept = [sum(column) for column in zip(*layers, strict=True)]
        resident, streamed = resident + kept[0], streamed + kept[1]
        from_disk, on_host = from_disk + kept[2], on_host + kept[3]
        buffer += _buffers(buffers, [s + d + (h if placement.replaceable else 0) for _, s, d, h in layers])
        read_buffer += _buffers(buffers, [layer[2] for layer in layers])
        if packed:
            scratch = max(scratch, sizes.matrix_bytes(part, sizes.outputs(part), packed=False))
    looked_up_on_host = placement.embedding is Tier.HOST
    embedding = sizes.embedding_bytes if not looked_up_on_host or sizes.tied_head else 0
    return Footprint(
        accel=sizes.fixed_bytes + embedding + resident + buffer + scratch,
        host=looked_up_on_host * sizes.embedding_bytes + streamed + on_host + read_buffer,
        disk=from_disk,
    )


def _bytes_by_layer(placement: Placement, sizes: ModelSizes, part: Part) -> list[tuple[int, ...]]:
    """Of one matrix, in the order of `Split`. Most layers of a model share a split, so each is worked out once."""
    outputs, packed = sizes.outputs(part), placement.compressed_weights
    known: dict[Split, tuple[int, ...]] = {}
    found = []
    for layer in placement.layers:
        split = layer.split(part)
        if split not in known:
            columns = split.columns(outputs)
            known[split] = tuple(sizes.matrix_bytes(part, count, packed=packed) for count in columns)
        found.append(known[split])
    return found


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
