"""Where weights and KV live and which unit computes with them: decided once by a policy, or again when the machine
turns out to be another one.

Shares, not columns: the core knows no sizes of a model. Whoever holds tensors turns a share into columns by the one
rule of `Split.columns`, so that what is budgeted is what is allocated.
"""

from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import NamedTuple

from engines.core.units import Tier, Unit

ROUNDING = 1e-6  # what shares may be off when they come from a solver


class PlacementError(ValueError):
    """A placement that means nothing, or that nobody can carry out."""


class Part(Enum):
    """The matrices of a layer, in the order in which rows meet them."""

    QKV = "qkv"
    OUTPUT = "output"
    UP = "up"
    DOWN = "down"


class Columns(NamedTuple):
    resident: int
    streamed: int
    from_disk: int
    host: int


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of a matrix's columns, by where they live and who computes with them. They sum to one."""

    resident: float = 1.0  # on the accelerator
    streamed: float = 0.0  # in the host's memory, brought over the link for every use
    from_disk: float = 0.0  # on disk: read into the host's memory, then over the link
    host: float = 0.0  # in the host's memory and computed there

    def __post_init__(self) -> None:
        shares = self.shares
        if min(shares) < 0.0 or abs(sum(shares) - 1.0) > ROUNDING:
            said = " + ".join(f"{share:g}" for share in shares)
            raise PlacementError(f"shares of a matrix (resident, streamed, from disk, host): {said} are not one whole")

    @property
    def shares(self) -> tuple[float, float, float, float]:
        return self.resident, self.streamed, self.from_disk, self.host

    @property
    def moved(self) -> float:
        """What crosses the link for every use."""
        return self.streamed + self.from_disk

    @property
    def is_resident(self) -> bool:
        return self.resident >= 1.0

    @property
    def is_on_host(self) -> bool:
        """All of it is computed there."""
        return self.host >= 1.0

    def columns(self, outputs: int) -> "Columns":
        """How many of so many columns each share is; they are dealt in this order."""
        ends = [round(share * outputs) for share in accumulate(self.shares)]
        ends[-1] = outputs
        return Columns(ends[0], ends[1] - ends[0], ends[2] - ends[1], ends[3] - ends[2])


RESIDENT, STREAMED, FROM_DISK, ON_HOST = Split(), Split(0.0, 1.0), Split(0.0, 0.0, 1.0), Split(0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class LayerPlacement:
    """One layer. Who decodes attends where the KV is; prompt rows may be computed on the accelerator all the same, and
    their KV leaves for its place.
    """

    qkv: Split = RESIDENT
    output: Split = RESIDENT
    up: Split = RESIDENT
    down: Split = RESIDENT
    kv: Tier = Tier.ACCEL
    prompts: Unit = Unit.GPU

    def __post_init__(self) -> None:
        if self.prompts not in (Unit.GPU, Unit.CPU) or (self.kv is Tier.ACCEL and self.prompts is Unit.CPU):
            raise PlacementError("prompt rows attend on the accelerator, or on the host where their KV is")

    @staticmethod
    def of(split: Split, kv: Tier = Tier.ACCEL, prompts: Unit = Unit.GPU) -> "LayerPlacement":
        """All four matrices alike."""
        return LayerPlacement(split, split, split, split, kv, prompts)

    @property
    def splits(self) -> tuple[Split, Split, Split, Split]:
        return self.qkv, self.output, self.up, self.down

    def split(self, part: Part) -> Split:
        found: Split = getattr(self, part.value)
        return found


@dataclass(frozen=True, slots=True)
class Placement:
    """`buffers`: how many layers' worth of moved weights the accelerator keeps room for, so that one loads while
    another is used. `overlapped`: whether anything may run beside anything else.
    """

    layers: tuple[LayerPlacement, ...]
    buffers: int = 2
    overlapped: bool = True
    zero_copy: bool = False  # small rows cross the link without queueing behind weights
    embedding: Tier = Tier.ACCEL  # on the host: rows are looked up there
    compressed_weights: bool = False
    compressed_kv: bool = False
    block: tuple[int, int] = (0, 0)  # of requests in lockstep: how many batches of how many; none when zero
    replaceable: bool = False  # what the host computes may be moved instead later on: there is room for it in a buffer
    stages: tuple[int, ...] = ()  # of each layer, which of several accelerators has it; one has all where not given
    # Worked out once: lowering asks at every step.
    all_resident: bool = field(init=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        told = (self.layers, self.buffers, self.overlapped, self.zero_copy, self.embedding, self.stages)
        object.__setattr__(self, "_hash", hash(told))
        plain = all(layer == LayerPlacement() for layer in self.layers) and not self.compressed_weights
        object.__setattr__(self, "all_resident", plain and not self.compressed_kv and self.embedding is Tier.ACCEL)
        if self.buffers not in (1, 2):
            raise PlacementError(f"buffers: {self.buffers}; weights are moved through one or two")
        if self.embedding is Tier.DISK:
            raise PlacementError("the embedding is looked up on the accelerator or on the host, not on disk")

        if self.stages and (len(self.stages) != len(self.layers) or list(self.stages) != sorted(self.stages)):
            raise PlacementError("stages: one for each layer, each accelerator's layers side by side")

    def __hash__(self) -> int:
        return self._hash

    @property
    def devices(self) -> int:
        """Accelerators that the layers are spread over."""
        return self.stages[-1] + 1 if self.stages else 1

    def device_of(self, layer: int) -> int:
        return self.stages[layer] if self.stages else 0

    @staticmethod
    def all_on_accelerator(layers: int) -> "Placement":
        return Placement((LayerPlacement(),) * layers)

    @property
    def moves_weights(self) -> bool:
        return any(split.moved for layer in self.layers for split in layer.splits)

    @property
    def uses_disk(self) -> bool:
        return any(layer.kv is Tier.DISK or any(split.from_disk for split in layer.splits) for layer in self.layers)

    @property
    def computes_on_host(self) -> bool:
        """Matrices or attention."""
        return any(layer.kv is not Tier.ACCEL or any(split.host for split in layer.splits) for layer in self.layers)

    def kv_layers(self, tier: Tier) -> int:
        return sum(layer.kv is tier for layer in self.layers)

    def __str__(self) -> str:
        """In a line: mean shares of the matrices, and how many layers' KV is where."""
        splits = [split for layer in self.layers for split in layer.splits]
        names = ("resident", "over the link", "from disk", "on the host")
        means = [sum(shares) / len(splits) for shares in zip(*[split.shares for split in splits], strict=True)]
        weights = ", ".join(f"{mean:.0%} {name}" for mean, name in zip(means, names, strict=True) if mean)
        tiers = zip(Tier, ("accelerator", "host", "disk"), strict=True)
        kv = ", ".join(f"{self.kv_layers(tier)} {name}" for tier, name in tiers if self.kv_layers(tier))
        return f"weights {weights}; KV of layers: {kv}"
