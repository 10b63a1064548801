"""The highest rate that meets the SLO: double until it is missed, then bisect.

The search knows rates and shares only; what a probe is gets handed in. Probes near the boundary are repeated with other
draws and the majority counts, so that one lucky or unlucky run does not decide.
Not here: running such a search as a cell (saturating_cell.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from workloads import Saturate

NEAR = 0.05  # shares this close to the one asked for may be luck
MOST_VOTES = 3


@dataclass(frozen=True, slots=True)
class Served:
    """One run at one rate: the share of requests within each limit of the SLO, and within all of them."""

    offered_rps: float  # as drawn; near the rate asked for
    within: Mapping[str, float]
    within_all: float


@dataclass(frozen=True, slots=True)
class Probe:
    rate_rps: float
    attempt: int  # 0 first; more where the rate was tried again
    served: Served
    met: bool


@dataclass(frozen=True, slots=True)
class Saturation:
    """`best` and `missed` are numbers of probes: the highest rate that met the SLO, the lowest that did not."""

    probes: tuple[Probe, ...]
    best: int | None
    missed: int | None

    @property
    def rate_rps(self) -> float | None:
        """None when no probe met the SLO; a lower bound when none missed it."""
        return None if self.best is None else self.probes[self.best].served.offered_rps

    @property
    def bound_by(self) -> str | None:
        """The limit that the fewest requests kept, just above the highest rate that met the SLO."""
        if self.missed is None:
            return None
        within = self.probes[self.missed].served.within
        return min(within, key=lambda key: within[key])


Serve = Callable[[float, int], Served]  # (requests per second, attempt)


def find_saturation(serve: Serve, search: Saturate) -> Saturation:
    """At most `search.most_probes` runs. Rates are bisected by ratio, because that is how they are compared."""
    probes: list[Probe] = []
    low: float | None = None
    high: float | None = None
    rate_rps = search.start_rate
    while len(probes) < search.most_probes:
        if _meets(serve, rate_rps, search, probes):
            low = rate_rps
        else:
            high = rate_rps
        if low is not None and high is not None and high <= low * (1 + search.tolerance):
            break
        rate_rps = _next_rate(low, high)
    return Saturation(tuple(probes), _last(probes, low, met=True), _last(probes, high, met=False))


def _next_rate(low: float | None, high: float | None) -> float:
    if high is None:
        assert low is not None, "a probe either met the SLO or missed it"
        return 2 * low
    return high / 2 if low is None else math.sqrt(low * high)


def _meets(serve: Serve, rate_rps: float, search: Saturate, probes: list[Probe]) -> bool:
    """What most runs at this rate say. A tie, when no probe is left to break it, is no."""
    votes: list[Probe] = []
    while len(probes) < search.most_probes and not _is_settled(votes, search.attainment):
        served = serve(rate_rps, len(votes))
        votes.append(Probe(rate_rps, len(votes), served, served.within_all >= search.attainment))
        probes.append(votes[-1])
    return 2 * sum(vote.met for vote in votes) > len(votes)


def _is_settled(votes: Sequence[Probe], attainment: float) -> bool:
    if len(votes) == 1:
        share = votes[0].served.within_all
        return share == 1 or abs(share - attainment) > NEAR
    return len(votes) == MOST_VOTES or (len(votes) == 2 and votes[0].met == votes[1].met)


def _last(probes: Sequence[Probe], rate_rps: float | None, met: bool) -> int | None:
    """The last probe at this rate that said so: there is one, for the majority said it."""
    said = [number for number, probe in enumerate(probes) if probe.rate_rps == rate_rps and probe.met == met]
    return said[-1] if said else None
