"""What the cost model knows about a machine. Plain numbers in SI units; where they come from is kept beside them.

This says nothing about how the numbers are combined into durations, and reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How far a constant can be trusted, best first."""

    MEASURED = "measured"  # by this harness, on that machine
    PUBLISHED = "published"  # somebody's measurement, or a fit to it
    DATASHEET = "datasheet"  # a peak that no program reaches
    ASSUMED = "assumed"  # reasoned, not measured


@dataclass(frozen=True, slots=True)
class Source:
    """Where one constant comes from, and the range it may well lie in when a single number claims too much."""

    text: str
    grade: Grade
    low: float | None = None
    high: float | None = None

    @property
    def has_range(self) -> bool:
        return self.low is not None and self.high is not None and self.low < self.high


@dataclass(frozen=True, slots=True)
class ByTokens:
    """Measured products over what the formula says, fixed parts left out, where both are known."""

    tokens: tuple[int, ...]  # rising
    ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix of one shape and its ratios: tiles and waves come at counts of its own."""

    inputs: int
    outputs: int
    by_tokens: ByTokens


@dataclass(frozen=True, slots=True)
class ByShape:
    products: tuple[Product, ...]


@dataclass(frozen=True, slots=True)
class Gemm:
    """t = ((bytes / (e_b B))^p + (flops / (e_c F))^p)^(1/p): e_b, e_c and p, fitted to measured linear ops."""

    bandwidth_efficiency: float
    compute_efficiency: float
    exponent: float
    tile_rows: int = 1  # rows beyond the first so many are computed in whole tiles of them
    by_shape: ByShape | None = None  # times which, where somebody measured that product
    by_tokens: ByTokens | None = None  # and for a product of any other shape


@dataclass(frozen=True, slots=True)
class GpuAttention:
    """Decode attention: a fixed part, then the KV bytes at a share of the memory bandwidth."""

    fixed_s: float
    efficiency: float


@dataclass(frozen=True, slots=True)
class SmallOps:
    """Norms, rotary positions and activations, four to a layer: each a fixed part, then what it reads and writes."""

    fixed_s: float
    efficiency: float  # of the memory bandwidth; above one where rows come from the cache


@dataclass(frozen=True, slots=True)
class Gpu:
    memory_bytes: int  # what a program can allocate, not what the box says
    bandwidth_bytes_per_s: float
    flops: Mapping[str, float]  # dense peak per second by dtype name; a dtype that is absent is not supported
    gemm: Gemm
    attention: GpuAttention
    op_fixed_s: float  # of each product
    small_ops: SmallOps | None = None  # none: not modelled, or measured together with the products
    gemm_8bit: Gemm | None = None  # products whose weights are kept in so many bits and unpacked on the way
    gemm_4bit: Gemm | None = None

    def packed_gemm(self, bits: int) -> Gemm | None:
        return {8: self.gemm_8bit, 4: self.gemm_4bit}[bits]


@dataclass(frozen=True, slots=True)
class Cpu:
    cores: int
    memory_bytes: int
    read_bandwidth_bytes_per_s: float  # what all cores of this machine can read together
    attention_share: float  # of that bandwidth, what host attention reaches
    matrix_share: float  # and what a matrix product of few rows does
    flops: float  # what a matrix product of many rows reaches on all cores, in whatever they compute with


@dataclass(frozen=True, slots=True)
class Link:
    h2d_bytes_per_s: float
    d2h_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Disk:
    read_bytes_per_s: float
    write_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Peers:
    """GPUs of the same kind beside the one described, each with a link to the host like its own."""

    count: int  # of all, the one described included
    bytes_per_s: float  # that each passes on to the next while all do
    latency_s: float  # of one such hand-over
    host_bytes_per_s: float  # that all links to the host carry together


@dataclass(frozen=True, slots=True)
class Interference:
    """Times as long as alone: what ops take while host and accelerator work side by side. 1 is undisturbed."""

    host: float = 1.0  # host attention and products, beside the accelerator and its copies; they share a memory
    links: float = 1.0  # copies, beside host attention
    accelerator: float = 1.0  # its ops, beside host attention: by way of the launching thread, or of a shared memory


@dataclass(frozen=True, slots=True)
class Hardware:
    name: str
    description: str
    gpu_name: str  # a regular expression over the name that the driver reports
    gpu: Gpu
    cpu: Cpu
    link: Link
    disk: Disk
    host_overhead_per_step_s: float
    sources: Mapping[str, Source]  # by dotted path: "gpu.gemm.exponent"
    peers: Peers | None = None  # a machine with one GPU has none
    interference: Interference = Interference()

    def at(self, path: str) -> object:
        """What is at a dotted path, as `sources` has them."""
        found: object = self
        for key in path.split("."):
            found = found[key] if isinstance(found, Mapping) else getattr(found, key)
        return found

    def has_gpu(self, reported_name: str) -> bool:
        """Whether a GPU that reports this name is the one this entry describes."""
        return re.search(self.gpu_name, reported_name) is not None
