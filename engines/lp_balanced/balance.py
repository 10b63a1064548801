"""TwinPilots' planner: which operators the host computes, so that the larger of two loads is smallest. HiGHS, by scipy.

The host's load is what it computes; the accelerator's is what it computes and the transfers of weights that are not
resident, which it waits for. An operator may be split by columns ("lp") or not ("integer", NP-complete but small).
Layers are alike: pieces with equal times are one variable, how many of them the host takes. Where times come from, and
when to plan anew, is not known here.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, linprog, milp

Form = Literal["lp", "integer"]

LOADS = ("CPU load", "GPU load")
EQUAL = 1e-9  # relative: closer than this, two plans are equally good
BINDS = 1e-6  # relative: closer to the larger load than this, a load binds
NEVER = 1e4  # times slower than the whole step without the host: the share it could take is less than a column
UNITS = 1e4  # lambda in the solver's numbers: its tolerances, absolute and at most 1e-6, are then less than EQUAL

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Piece:
    """One operator of one layer. `transfer_s` brings its weights over the link, if they are not resident; `cpu_s` may
    be infinite, where the host cannot compute it.
    """

    layer: int
    name: str
    cpu_s: float
    gpu_s: float
    transfer_s: float
    size_bytes: int

    def __post_init__(self) -> None:
        on_gpu_s = self.gpu_s + self.transfer_s
        if not (self.cpu_s >= 0 and self.gpu_s >= 0 and self.transfer_s >= 0 and math.isfinite(on_gpu_s)):
            raise ValueError(f"layer {self.layer}, {self.name}: times must not be negative, nor infinite but cpu_s")


@dataclass(frozen=True, slots=True)
class Balance:
    """`host_share` is each piece's, in the order given. `duals`: how much lambda grows with a second more of a load;
    those of the integer form are of its relaxation. `proven` is false where the time limit cut the search short.
    """

    host_share: tuple[float, ...]
    cpu_s: float
    gpu_s: float
    duals: Mapping[str, float]
    proven: bool

    @property
    def lambda_s(self) -> float:
        return max(self.cpu_s, self.gpu_s)

    @property
    def binds(self) -> tuple[str, ...]:
        loads = zip(LOADS, (self.cpu_s, self.gpu_s), strict=True)
        return tuple(name for name, load_s in loads if load_s >= self.lambda_s * (1 - BINDS))

    @property
    def imbalance(self) -> float:
        return abs(self.cpu_s - self.gpu_s) / self.lambda_s if self.lambda_s else 0.0


def balance(
    pieces: Sequence[Piece],
    form: Form,
    pinned: frozenset[int] = frozenset(),
    fixed_cpu_s: float = 0.0,
    fixed_gpu_s: float = 0.0,
    time_limit_s: float = 10.0,
) -> Balance:
    """Pieces in `pinned` (indices) are resident: they need no transfer and stay on the accelerator. The fixed times are
    of what follows the KV, attention. The limit is of each of the integer form's three searches.
    """
    program = _Program.of(pieces, pinned, fixed_cpu_s, fixed_gpu_s)
    relaxed = program.relaxation()
    marginals = zip(LOADS, relaxed.ineqlin.marginals.tolist(), strict=True)
    duals = {name: -value for name, value in marginals if abs(value) > 1e-12}
    counts, proven = program.best(relaxed.x[:-1], time_limit_s if form == "integer" else None)
    shares = [0.0] * len(pieces)
    for phase, (kind, count) in enumerate(zip(program.kinds, counts.tolist(), strict=True)):
        alike = [count / len(kind.members)] * len(kind.members)
        dealt = alike if form == "lp" else _dealt(len(kind.members), int(count), phase, len(program.kinds))
        for index, share in zip(kind.members, dealt, strict=True):
            shares[index] = share
    return Balance(tuple(shares), *program.loads_s(counts), duals, proven)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Pieces that only their layer and name tell apart, by layer."""

    cpu_s: float
    gpu_s: float  # with the transfer
    size_bytes: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Program:
    """Columns: how many pieces of each kind the host takes, then lambda. Rows: the two loads, at most lambda."""

    kinds: tuple[_Kind, ...]
    fixed_cpu_s: float
    fixed_gpu_s: float  # with the pieces that stay there

    @staticmethod
    def of(pieces: Sequence[Piece], pinned: frozenset[int], fixed_cpu_s: float, fixed_gpu_s: float) -> _Program:
        if not pinned <= set(range(len(pieces))):
            raise ValueError(f"pinned: indices of the {len(pieces)} pieces, not {sorted(pinned)}")
        if not (0 <= fixed_cpu_s < math.inf and 0 <= fixed_gpu_s < math.inf):
            raise ValueError(f"fixed times: finite and not negative, not {fixed_cpu_s} and {fixed_gpu_s} s")
        times_s = [piece.gpu_s + piece.transfer_s * (i not in pinned) for i, piece in enumerate(pieces)]
        never_s = NEVER * max(fixed_cpu_s, math.fsum([fixed_gpu_s, *times_s]))
        alike: dict[tuple[float, float, float, int], list[int]] = {}
        staying_s = [fixed_gpu_s]
        for i, piece in sorted(enumerate(pieces), key=lambda item: item[1].layer):
            if i in pinned or piece.cpu_s > never_s:
                staying_s.append(times_s[i])
            else:
                alike.setdefault((piece.cpu_s, piece.gpu_s, piece.transfer_s, piece.size_bytes), []).append(i)
        kinds = (_Kind(cpu, gpu + link, size, tuple(members)) for (cpu, gpu, link, size), members in alike.items())
        return _Program(tuple(kinds), fixed_cpu_s, math.fsum(staying_s))

    @property
    def most(self) -> FloatArray:
        return np.array([len(kind.members) for kind in self.kinds], dtype=np.float64)

    @property
    def times_s(self) -> FloatArray:
        """[2, kinds]: of one piece, on the host and on the accelerator."""
        return np.array([[kind.cpu_s for kind in self.kinds], [kind.gpu_s for kind in self.kinds]])

    def loads_s(self, counts: FloatArray) -> tuple[float, float]:
        cpu_s, gpu_s = self.times_s
        return self.fixed_cpu_s + float(cpu_s @ counts), self.fixed_gpu_s + float(gpu_s @ (self.most - counts))

    def relaxation(self) -> OptimizeResult:
        """Columns may be fractions. Its duals are seconds per second, of any scale."""
        scale = _scale(self.loads_s(0 * self.most))
        found = self._minimised(self._objectives(scale)[0], *self._rows(scale), time_limit_s=None)
        if found.x is None:
            raise RuntimeError(f"every balance has a solution, but HiGHS found none: {found.message}")
        return found

    def best(self, counts: FloatArray, time_limit_s: float | None) -> tuple[FloatArray, bool]:
        """From the relaxation's counts: the best ones, whole if there is a time limit, and whether that is proven."""
        scale = _scale(self.loads_s(counts))
        rows, upper = self._rows(scale)
        whole, proven = time_limit_s is not None, True
        counts = np.round(counts) if whole else counts
        for objective in self._objectives(scale):
            found = self._minimised(objective, rows, upper, time_limit_s)
            proven = proven and found.status == 0
            # A search that is cut short can have less than it was given.
            candidates = [counts] if found.x is None else [_tidy(found.x[:-1], self.most, whole), counts]
            points = [np.append(each, scale * max(self.loads_s(each))) for each in candidates]
            reached, at = min((float(objective @ point), at) for at, point in enumerate(points))
            counts, equal = candidates[at], EQUAL * points[at][-1] if whole else 0.0
            rows, upper = np.vstack([rows, objective]), np.append(upper, reached + equal)
        return counts, proven

    def _rows(self, scale: float) -> tuple[FloatArray, FloatArray]:
        cpu_s, gpu_s = self.times_s
        rows = np.array([np.append(scale * cpu_s, -1.0), np.append(-scale * gpu_s, -1.0)])
        return rows, -scale * np.array(self.loads_s(0 * self.most))

    def _objectives(self, scale: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Lambda; among equal ones both loads together; then the bytes of the host's pieces. Without the later two, a
        load that does not bind could be anything.
        """
        cpu_s, gpu_s = self.times_s
        sizes = np.array([float(kind.size_bytes) for kind in self.kinds])
        held = UNITS * sizes / max(1.0, float(sizes @ self.most))
        return np.append(0 * sizes, 1.0), np.append(scale * (cpu_s - gpu_s), 0.0), np.append(held, 0.0)

    def _minimised(
        self, objective: FloatArray, rows: FloatArray, upper: FloatArray, time_limit_s: float | None
    ) -> OptimizeResult:
        """Counts in whole numbers if there is a time limit."""
        free = np.append(self.most, np.inf)
        if time_limit_s is None:
            bounds = [(0.0, most) for most in free.tolist()]
            return linprog(objective, rows, upper, bounds=bounds, method="highs")
        with _quiet():
            return milp(
                objective,
                integrality=np.append(np.ones(len(self.kinds), dtype=np.int64), 0),
                bounds=Bounds(0.0, free),
                constraints=LinearConstraint(rows, -np.inf, upper),
                options={"mip_rel_gap": 0.0, "time_limit": time_limit_s},
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The solver prints a line now and then, past Python's streams, and stdout may be JSON: it goes nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _scale(loads_s: tuple[float, float]) -> float:
    return UNITS / max(loads_s) if max(loads_s) else 1.0


def _tidy(counts: FloatArray, most: FloatArray, whole: bool) -> FloatArray:
    """Without what the solver's tolerances leave."""
    nearest = np.round(counts)
    return np.clip(np.where(whole | (np.abs(counts - nearest) < EQUAL), nearest, counts), 0.0, most)


def _dealt(size: int, count: int, phase: int, phases: int) -> list[float]:
    """Which members the host takes: evenly spread, by Bresenham's line. Kinds start at different phases of theirs, so
    that the host and the link both have work in every few layers.
    """
    passed = [(at * count * phases + phase * size) // (size * phases) for at in range(size + 1)]
    return [float(after - before) for before, after in itertools.pairwise(passed)]
