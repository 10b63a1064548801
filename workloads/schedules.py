"""What an entry says of its arrivals: `arrivals` and `rate`, in short and long form, as one of the processes.

Not the processes themselves (`arrivals`), and no times: those are drawn when the number of requests is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workloads.arrivals import (
    AllAtOnce,
    Arrivals,
    Burst,
    ClosedLoop,
    Constant,
    Gamma,
    Poisson,
    Saturate,
    TraceTimes,
)
from workloads.fitted import AZURE_CONV_ARRIVAL_CV, AZURE_CONV_ARRIVALS_SOURCE, AZURE_CONV_RATE_PER_S
from workloads.options import Options


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


def _gamma(options: Options) -> Gamma:
    # Outside this range gaps are equal or zero within rounding; `constant` and `burst` say that openly.
    return Gamma(options.positive("rate"), options.between("arrival_cv", 0.01, 100))


def _azure_conv(options: Options) -> Gamma:
    return Gamma(options.positive("rate"), AZURE_CONV_ARRIVAL_CV)


def _closed_loop(options: Options) -> ClosedLoop:
    return ClosedLoop(options.whole("users"), options.between("think_s", 0, 1e6))


def _saturate(options: Options) -> Saturate:
    return Saturate(
        start_rate=options.positive("start_rate"),
        most_probes=options.whole("most_probes", minimum=2, maximum=100),
        attainment=options.between("attainment", 0.01, 1),
        tolerance=options.between("tolerance", 0.001, 1),
        spacing=options.choice("spacing", ("poisson", "constant")),
    )


_SATURATE_DEFAULTS: dict[str, object] = {
    "start_rate": 1.0,
    "most_probes": 16,
    "attainment": 0.9,
    "tolerance": 0.02,
    "spacing": "poisson",
}

_KINDS: dict[str, tuple[dict[str, object], Callable[[Options], Arrivals]]] = {
    "all_at_once": ({}, lambda _: AllAtOnce()),
    "constant": ({"rate": None}, lambda options: Constant(options.positive("rate"))),
    "poisson": ({"rate": None}, lambda options: Poisson(options.positive("rate"))),
    "gamma": ({"rate": None, "arrival_cv": None}, _gamma),
    "azure_conv": ({"rate": AZURE_CONV_RATE_PER_S}, _azure_conv),
    "burst": ({"rate": None, "burst": 8}, lambda options: Burst(options.positive("rate"), options.whole("burst"))),
    "closed_loop": ({"users": None, "think_s": 0.0}, _closed_loop),
    "saturate": (_SATURATE_DEFAULTS, _saturate),
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
