"""When requests arrive: seconds from the start of the run, decided before it starts.

Not here: the search that `saturate` asks for, which the harness makes with many runs, and closed loops beyond their
number of users, because only a running engine knows when a user is free again. What an entry says of its arrivals is
read in `schedules`. The first request of every schedule arrives at 0, so that a run does not begin with idle time. Gaps
are drawn with mean 1 and divided by the rate: another rate is the same schedule, stretched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workloads.streams import Purpose, bit_generator, uniforms

Times = NDArray[np.float64]


class Arrivals(Protocol):
    @property
    def label(self) -> str: ...
    def times(self, count: int, seed: int) -> Times: ...  # [count], not falling, the first is 0


@dataclass(frozen=True, slots=True)
class AllAtOnce:
    @property
    def label(self) -> str:
        return "all at once"

    def times(self, count: int, seed: int) -> Times:
        return np.zeros(count)


@dataclass(frozen=True, slots=True)
class Constant:
    rate: float

    @property
    def label(self) -> str:
        return f"constant, {self.rate:g}/s"

    def times(self, count: int, seed: int) -> Times:
        return np.arange(count) / self.rate


@dataclass(frozen=True, slots=True)
class Poisson:
    rate: float

    @property
    def label(self) -> str:
        return f"Poisson, {self.rate:g}/s"

    def times(self, count: int, seed: int) -> Times:
        return _cumulated(-np.log1p(-uniforms(seed, Purpose.ARRIVAL, count - 1)), self.rate)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gamma-distributed gaps; `arrival_cv` is their standard deviation over their mean (1: Poisson, more: clumps)."""

    rate: float
    arrival_cv: float

    @property
    def label(self) -> str:
        return f"gamma, {self.rate:g}/s, arrival_cv {self.arrival_cv:g}"

    def times(self, count: int, seed: int) -> Times:
        shape = self.arrival_cv**-2
        gaps = np.random.Generator(bit_generator(seed, Purpose.ARRIVAL)).standard_gamma(shape, count - 1)
        return _cumulated(gaps / shape, self.rate)


@dataclass(frozen=True, slots=True)
class Burst:
    """`size` requests at one moment, again and again, `rate` per second in the long run."""

    rate: float
    size: int

    @property
    def label(self) -> str:
        return f"bursts of {self.size}, {self.rate:g}/s"

    def times(self, count: int, seed: int) -> Times:
        return np.asarray((np.arange(count) // self.size) * (self.size / self.rate), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`users` who each send the next request `think_s` after their last one was answered."""

    users: int
    think_s: float = 0.0

    @property
    def label(self) -> str:
        think = f", {self.think_s:g} s think time" if self.think_s else ""
        return f"closed loop, {self.users} users{think}"

    def times(self, count: int, seed: int) -> Times:
        return np.zeros(count)


@dataclass(frozen=True, slots=True)
class Saturate:
    """A search for the highest rate at which `attainment` of the requests meet the SLO. Its schedule: the first probe.

    It ends when the highest rate that met it and the lowest that did not are within `tolerance` of each other.
    """

    start_rate: float
    most_probes: int
    attainment: float
    tolerance: float
    spacing: str  # "poisson" or "constant"

    @property
    def label(self) -> str:
        return f"{self.spacing}, at the highest rate that meets the SLO, searched from {self.start_rate:g}/s"

    def times(self, count: int, seed: int) -> Times:
        return self.at(self.start_rate).times(count, seed)

    def at(self, rate: float) -> Poisson | Constant:
        return Poisson(rate) if self.spacing == "poisson" else Constant(rate)


@dataclass(frozen=True, slots=True)
class TraceTimes:
    """The times of the trace itself, `recorded` in order; with a rate, stretched so that their mean rate is that."""

    recorded: Times
    rate: float | None = None

    @property
    def label(self) -> str:
        return "trace times" if self.rate is None else f"trace times stretched to {self.rate:g}/s"

    def times(self, count: int, seed: int) -> Times:
        since_start = np.asarray(self.recorded[:count] - self.recorded[0], dtype=np.float64)
        span_s = float(since_start[-1])
        if self.rate is None or span_s == 0:
            return since_start
        return np.asarray(since_start * ((count - 1) / (span_s * self.rate)), dtype=np.float64)


def _cumulated(unit_gaps: Times, rate: float) -> Times:
    return np.asarray(np.concatenate(([0.0], np.cumsum(unit_gaps))) / rate, dtype=np.float64)
