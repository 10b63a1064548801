"""When requests arrive: seconds from the start of the run, decided before it starts.

Not here: `saturate`, a search for the highest rate that the driver makes with many runs, and closed loops beyond their
number of users, because only a running engine knows when a user is free again. The first request of every schedule
arrives at 0, so that a run does not begin with idle time. Gaps are drawn with mean 1 and divided by the rate: another
rate is the same schedule, stretched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workloads.fitted import AZURE_CONV_ARRIVAL_CV, AZURE_CONV_ARRIVALS_SOURCE, AZURE_CONV_RATE_PER_S
from workloads.options import Options
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """Arrivals as an entry asked for them, and where their parameters come from."""

    arrivals: Arrivals
    sources: tuple[str, ...] = ()

    @property
    def users(self) -> int:
        return self.arrivals.users if isinstance(self.arrivals, ClosedLoop) else 0

    @property
    def think_s(self) -> float:
        return self.arrivals.think_s if isinstance(self.arrivals, ClosedLoop) else 0.0


def _cumulated(unit_gaps: Times, rate: float) -> Times:
    return np.asarray(np.concatenate(([0.0], np.cumsum(unit_gaps))) / rate, dtype=np.float64)


def _gamma(options: Options) -> Gamma:
    # Outside this range gaps are equal or zero within rounding; `constant` and `burst` say that openly.
    return Gamma(options.positive("rate"), options.between("arrival_cv", 0.01, 100))


def _azure_conv(options: Options) -> Gamma:
    return Gamma(options.positive("rate"), AZURE_CONV_ARRIVAL_CV)


def _closed_loop(options: Options) -> ClosedLoop:
    return ClosedLoop(options.whole("users"), options.between("think_s", 0, 1e6))


_KINDS: dict[str, tuple[dict[str, object], Callable[[Options], Arrivals]]] = {
    "all_at_once": ({}, lambda _: AllAtOnce()),
    "constant": ({"rate": None}, lambda options: Constant(options.positive("rate"))),
    "poisson": ({"rate": None}, lambda options: Poisson(options.positive("rate"))),
    "gamma": ({"rate": None, "arrival_cv": None}, _gamma),
    "azure_conv": ({"rate": AZURE_CONV_RATE_PER_S}, _azure_conv),
    "burst": ({"rate": None, "burst": 8}, lambda options: Burst(options.positive("rate"), options.whole("burst"))),
    "closed_loop": ({"users": None, "think_s": 0.0}, _closed_loop),
}
ARRIVAL_KINDS = (*_KINDS, "trace")


def schedule_from(options: Options, default: Arrivals) -> Schedule:
    """What an entry's `arrivals` and `rate` mean; neither: `default`.

    `rate` alone is Poisson; beside `arrivals` it is the rate of that schedule, so that any of them can be swept over
    it.
    """
    entry = _arrivals_entry(options)
    if entry is None:
        return Schedule(default)
    where = f"{options.where}: arrivals"
    kind = Options(where, {"kind": entry.get("kind")}, {"kind": None}).choice("kind", ARRIVAL_KINDS)
    if kind == "trace":
        return Schedule(_trace_times(options, Options(where, entry, {"kind": None, "rate": None}), default))
    defaults, read = _KINDS[kind]
    arrivals = read(Options(where, entry, {"kind": None, **defaults}))
    return Schedule(arrivals, (AZURE_CONV_ARRIVALS_SOURCE,) if kind == "azure_conv" else ())


def _arrivals_entry(options: Options) -> Mapping[str, object] | None:
    """The long form of what was given: a mapping with a kind."""
    if not options.given("arrivals"):
        return {"kind": "poisson", "rate": options.positive("rate")} if options.given("rate") else None
    given = options.value("arrivals")
    entry = {"kind": given} if isinstance(given, str) else given
    if not isinstance(entry, Mapping):
        raise options.mistake("arrivals", f"must be a kind ({', '.join(ARRIVAL_KINDS)}) or a mapping with a kind")
    if not options.given("rate"):
        return entry
    if entry.get("rate") is not None:
        raise options.mistake("rate", "is given twice, beside arrivals and inside; leave one out")
    return {**entry, "rate": options.positive("rate")}


def _trace_times(options: Options, entry: Options, default: Arrivals) -> TraceTimes:
    if not isinstance(default, TraceTimes):
        raise options.mistake("arrivals", "of kind 'trace' need a workload of kind 'trace', which has times of its own")
    rate = entry.positive("rate") if entry.given("rate") else None
    if rate is not None and default.recorded[0] == default.recorded[-1]:
        raise entry.mistake("rate", "cannot stretch a trace whose requests all arrive at one moment")
    return TraceTimes(default.recorded, rate)
