"""What an engine may not do to its own figures: stamp times that cannot be, or answer what nobody asked.

The driver believes a time stamp only between the two moments where it must lie, and counts every breach; a cell with
any is invalid. Not here: wrong tokens (parity.py), more resources than the envelope allows (fairness.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

TOLERANCE_S = 1e-3  # on the wall clock: two threads may read it in another order than they act
MOST_BREACHES = 1000  # past this nothing more can be learnt from serving on


class Handover(NamedTuple):
    """The driver's own readings around one poll, which bound the moment at which a delivery can have happened.

    `looked_s` was taken before the poll before this one: what came in while that one was under way is handed over now.
    `polled_s` was taken before this poll; everything in flight had been asked for by then.
    """

    looked_s: float
    polled_s: float
    handed_s: float
    tolerance_s: float = 0.0

    def allows(self, time_s: float) -> bool:
        """False for NaN as well."""
        return self.looked_s - self.tolerance_s <= time_s <= self.handed_s + self.tolerance_s


class Breach(Enum):
    """Every kind, as the sentence that it makes. `{first}` tells of its first case."""

    EARLY = "reported {tokens} up to {extent_s:.2g} s before they were handed over"
    LATE = "reported {tokens} up to {extent_s:.2g} s after they were handed over"
    TIMELESS = "reported {tokens} at {first}, which is no time"
    UNSCHEDULED = "reported {requests} scheduled before they were sent or later than now ({first} first)"
    SURPLUS = "handed over {tokens} more than were asked for ({first})"
    UNASKED = "handed over {tokens} for requests that were never sent or had already ended ({first} first)"
    STRANGER = "reported events of {requests} that were never sent or had already ended ({first} first)"
    CUT_SHORT = "ended {requests} before all tokens were there ({first})"
    UNEVEN = "handed over {count} deliveries with other than one token per row ({first})"


@dataclass(slots=True)
class _Tally:
    count: int = 0
    extent_s: float = 0.0
    first: str = ""


class Breaches:
    """How often what happened, and what it comes to in words."""

    def __init__(self) -> None:
        self._tallies: dict[Breach, _Tally] = {}
        self.total = 0

    @property
    def too_many(self) -> bool:
        return self.total >= MOST_BREACHES

    def add(self, breach: Breach, first: str = "", count: int = 1, extent_s: float = 0.0) -> None:
        tally = self._tallies.setdefault(breach, _Tally(first=first))
        tally.count += count
        tally.extent_s = max(tally.extent_s, extent_s)
        self.total += count

    def mistimed(self, tokens: int, time_s: float, handed_s: float) -> None:
        if time_s <= handed_s:
            self.add(Breach.EARLY, count=tokens, extent_s=handed_s - time_s)
        elif time_s > handed_s:
            self.add(Breach.LATE, count=tokens, extent_s=time_s - handed_s)
        else:
            self.add(Breach.TIMELESS, first=str(time_s), count=tokens)

    def sentences(self) -> list[str]:
        found = [_sentence(breach, tally) for breach, tally in self._tallies.items()]
        return [*found, f"serving was stopped after {self.total:,} such breaches"] if self.too_many else found


def _sentence(breach: Breach, tally: _Tally) -> str:
    return breach.value.format(
        count=tally.count,
        tokens=_number(tally.count, "token"),
        requests=_number(tally.count, "request"),
        extent_s=tally.extent_s,
        first=tally.first,
    )


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
