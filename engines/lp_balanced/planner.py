"""FlexGen's planner: for every shape of a block an LP over the fractions, and the best shape. HiGHS, through scipy.

Outside the LP: the GPU batch (1, 2, 3, 4, 8, 16, ...) and how many of them make a block, upward until throughput falls
or memory is short. Among placements that are equally fast the one with more on the GPU is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeResult, linprog

from engines.lp_balanced.flexgen import Fractions, Layer

ALPHA = 0.8  # of each tier's capacity; the rest is the runtime's
MOST_GPU_BATCH = 512
MOST_BATCHES = 4096
BINDS = 1e-6  # relative: closer to its limit than this, a constraint binds
ON_THE_GPU = ("wg", "cg", "hg")
PRICE = {"GPU": 100.0, "CPU": 10.0, "disk": 1.0}  # of a byte more: what is short is said of the cheapest
PREFILL, DECODE = 9, 10  # columns after the fractions

FloatArray = npt.NDArray[np.float64]


class NoPlanError(ValueError):
    """Nothing fits; says which memory is short, and by how much."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of each tier."""

    gpu: int
    cpu: int
    disk: int

    def limits(self) -> dict[str, float]:
        """At least a byte: shares of it are what the program is written in."""
        return {
            "GPU": max(1.0, ALPHA * self.gpu),
            "CPU": max(1.0, ALPHA * self.cpu),
            "disk": max(1.0, ALPHA * self.disk),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """`binds` and `duals` name what holds the plan back. A dual: how many seconds per request each second of that part
    costs, and for a memory how many a GiB more would save.
    """

    layer: Layer
    fractions: Fractions
    total_s: float
    binds: tuple[str, ...]
    duals: Mapping[str, float]
    peak_bytes: Mapping[str, float]

    @property
    def tokens_per_s(self) -> float:
        return self.layer.block * self.layer.n / self.total_s

    def to_json(self) -> dict[str, object]:
        return asdict(self.fractions) | {
            "model": self.layer.model.name,
            "constants": self.layer.constants.name,
            "gpu_batch": self.layer.gpu_batch,
            "num_gpu_batches": self.layer.batches,
            "predicted_latency_s": self.total_s,
            "predicted_tokens_per_s": self.tokens_per_s,
            "binds": list(self.binds),
            "duals": dict(self.duals),
            "peak_bytes": dict(self.peak_bytes),
        }


def plan(
    layer: Layer,
    memory: Memory,
    gpu_batch: int | None = None,
    batches: int | None = None,
    most_batches: int = MOST_BATCHES,
) -> Plan:
    """`layer` with any block: its shape is what is searched, as far as it is not given."""
    best: Plan | None = None
    for batch in [gpu_batch] if gpu_batch else gpu_batches():
        found = _best_of_batches(replace(layer, gpu_batch=batch), memory, batches, most_batches)
        if found is None:
            break  # larger batches need more of every memory
        if best is None or found.tokens_per_s > best.tokens_per_s:
            best = found
    if best is None:
        smallest = replace(layer, gpu_batch=gpu_batch or 1, batches=batches or 1)
        raise NoPlanError(_shortage(smallest, memory))
    return best


def gpu_batches() -> Iterator[int]:
    yield from (1, 2, 3)
    size = 4
    while size <= MOST_GPU_BATCH:
        yield size
        size *= 2


def _best_of_batches(layer: Layer, memory: Memory, batches: int | None, most: int) -> Plan | None:
    best: Plan | None = None
    for count in [batches] if batches else range(1, most + 1):
        found = solve(replace(layer, batches=count), memory)
        if found is None or (best is not None and found.tokens_per_s < best.tokens_per_s):
            break
        best = found
    return best


def solve(layer: Layer, memory: Memory) -> Plan | None:
    """The fastest placement of one block shape; None when none fits."""
    program = _Program.of(layer, memory)
    fastest = program.minimised(program.latency)
    if not fastest.success:
        return None
    kept = program.within(fastest.fun)
    placed = kept.minimised(np.array([-1.0 * (name in ON_THE_GPU) for name in Fractions.names()] + [0.0, 0.0]))
    values = np.clip((placed if placed.success else fastest).x[:PREFILL], 0.0, 1.0)
    fractions = Fractions(*values.tolist())
    used, limits = _peaks(layer, fractions), memory.limits()
    binds = [f"prefill: {name}" for name in _largest(layer.prefill_s(fractions))]
    binds += [f"decode: {name}" for name in _largest(layer.decode_s(fractions))]
    binds += [f"{tier} memory" for tier, size in used.items() if size >= limits[tier] * (1 - BINDS)]
    return Plan(layer, fractions, layer.total_s(fractions), tuple(binds), program.duals(fastest), used)


@dataclass(frozen=True, slots=True)
class _Program:
    """Rows of `matrix @ x <= upper`; x are the fractions, then the time of a layer in prefill and in decoding.

    Memory rows are in shares of their limit, so that seconds and bytes are of one size.
    """

    names: tuple[str, ...]
    matrix: FloatArray
    upper: FloatArray
    latency: FloatArray  # per request of the block
    per_gib: Mapping[str, float]  # of a memory row: shares of its limit that one GiB more is

    @staticmethod
    def of(layer: Layer, memory: Memory) -> _Program:
        names, rows, upper, per_gib = [], [], [], {}
        for phase, column, parts in (
            ("prefill", PREFILL, _affine_parts(layer, "prefill_s")),
            ("decode", DECODE, _affine_parts(layer, "decode_s")),
        ):
            for name, (slopes, constant) in parts.items():
                times = np.zeros(2)
                times[column - PREFILL] = -1.0
                names.append(f"{phase}: {name}")
                rows.append(np.concatenate([slopes, times]))
                upper.append(-constant)
        for tier, phases in _affine_peaks(layer).items():
            limit = memory.limits()[tier]
            for phase, (slopes, constant) in phases.items():
                name = f"{tier} memory, {phase}"
                names.append(name)
                rows.append(np.concatenate([slopes / limit, np.zeros(2)]))
                upper.append(1.0 - constant / limit)
                per_gib[name] = ALPHA * 2**30 / limit
        layers = layer.model.layers
        latency = np.array([0.0] * PREFILL + [layers, layers * (layer.n - 1)]) / layer.block
        return _Program(tuple(names), np.array(rows), np.array(upper), latency, per_gib)

    def within(self, latency: float) -> _Program:
        """Only what is as fast."""
        matrix, upper = np.vstack([self.matrix, self.latency]), np.append(self.upper, latency * (1 + 1e-9))
        return replace(self, names=(*self.names, "latency"), matrix=matrix, upper=upper)

    def minimised(self, objective: FloatArray) -> OptimizeResult:
        """Columns beyond the two times are anything that is not negative."""
        ones = np.zeros((3, len(objective)))
        for row in range(3):
            ones[row, 3 * row : 3 * row + 3] = 1.0  # fractions of weights, of cache, of hidden state
        free = len(objective) - PREFILL
        bounds = [(0.0, 1.0)] * (PREFILL - 1) + [(0.0, 0.0)] + [(0.0, None)] * free  # hn = 0
        return linprog(objective, self.matrix, self.upper, ones, np.ones(3), bounds, method="highs")

    def duals(self, found: OptimizeResult) -> dict[str, float]:
        marginals = dict(zip(self.names, found.ineqlin.marginals.tolist(), strict=True))
        return {name: -value * self.per_gib.get(name, 1.0) for name, value in marginals.items() if abs(value) > 1e-12}


def _affine_parts(layer: Layer, of: str) -> dict[str, tuple[FloatArray, float]]:
    """Every equation is affine in the fractions: its values at the unit vectors and at zero are all there is to it."""
    zero: dict[str, float] = getattr(layer, of)(Fractions())
    units: list[dict[str, float]] = [getattr(layer, of)(Fractions(**{name: 1.0})) for name in Fractions.names()]
    return {name: (np.array([unit[name] - at for unit in units]), at) for name, at in zero.items()}


def _affine_peaks(layer: Layer) -> dict[str, dict[str, tuple[FloatArray, float]]]:
    zero = layer.peak_bytes(Fractions())
    units = [layer.peak_bytes(Fractions(**{name: 1.0})) for name in Fractions.names()]
    return {
        tier: {phase: (np.array([unit[tier][phase] - at for unit in units]), at) for phase, at in phases.items()}
        for tier, phases in zero.items()
    }


def _peaks(layer: Layer, fractions: Fractions) -> dict[str, float]:
    return {tier: max(phases.values()) for tier, phases in layer.peak_bytes(fractions).items()}


def _largest(parts: Mapping[str, float]) -> list[str]:
    most = max(parts.values())
    return [name for name, seconds in parts.items() if seconds >= most * (1 - BINDS)]


def _shortage(layer: Layer, memory: Memory) -> str:
    """The cheapest addition with which this block would fit."""
    program, limits = _Program.of(layer, memory), memory.limits()
    tiers = list(limits)
    added = np.array([[-1.0 * name.startswith(f"{tier} memory") for tier in tiers] for name in program.names])
    wider = replace(program, matrix=np.hstack([program.matrix, added]))
    times = program.matrix.shape[1]
    found = wider.minimised(np.concatenate([np.zeros(times), [PRICE[tier] * limits[tier] for tier in tiers]]))
    short = {tier: share * limits[tier] / ALPHA for tier, share in zip(tiers, found.x[times:], strict=True)}
    said = [f"{tier} memory is short of {size / 2**30:.2f} GiB" for tier, size in short.items() if size > 2**20]
    return (
        f"{layer.model.name}: no placement fits {layer.gpu_batch} x {layer.batches} requests of {layer.s} + {layer.n} "
        f"tokens: {' and '.join(said)} (a plan may fill {ALPHA:.0%} of each)"
    )
