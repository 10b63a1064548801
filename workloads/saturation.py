"""Entries whose arrivals are `saturate`: what they ask to be searched for, and the same entry at one rate.

Not the search itself, which needs engines: the harness makes it, one run per rate.
"""

from __future__ import annotations

from collections.abc import Mapping

from workloads.arrivals import AllAtOnce, Saturate
from workloads.kinds import checked_options
from workloads.schedules import schedule_from


def asks_to_saturate(options: Mapping[str, object]) -> bool:
    arrivals = options.get("arrivals")
    return (arrivals.get("kind") if isinstance(arrivals, Mapping) else arrivals) == "saturate"


def search_of(options: Mapping[str, object]) -> Saturate:
    """What is to be searched for, in one point of a sweep that `asks_to_saturate`."""
    _, checked = checked_options(options)
    found = schedule_from(checked, AllAtOnce()).arrivals
    assert isinstance(found, Saturate), "the entry has a schedule of its own"
    return found


def at_rate(options: Mapping[str, object], rate: float) -> dict[str, object]:
    """The same requests, arriving at `rate` per second."""
    return {**options, "arrivals": {"kind": search_of(options).spacing, "rate": rate}}
