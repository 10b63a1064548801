"""Machines that a catalogue entry may as well describe: its uncertain constants drawn from the ranges beside them.

A Latin hypercube: among n draws each constant takes every n-th of its range once, in an order of its own. So few draws
see all of every range, and two engines simulated on the same draw are on the same machine. Not random in any other
sense: the k-th of n draws is always the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from engines.hardware.machine import Hardware, Source

T = TypeVar("T")


def uncertain(hardware: Hardware) -> dict[str, Source]:
    """The constants with a range, by dotted path."""
    return {path: source for path, source in hardware.sources.items() if source.has_range}


def drawn(hardware: Hardware, draw: int, of: int) -> Hardware:
    """`draw` is 1 to `of`; 0 is the machine as the entry says it."""
    if draw == 0:
        return hardware
    if not 1 <= draw <= of:
        raise ValueError(f"draw {draw} of {of}")
    values = {path: _value(path, source, draw, of) for path, source in uncertain(hardware).items()}
    return replace(_with(hardware, "", values), sources=hardware.sources)


def _value(path: str, source: Source, draw: int, of: int) -> float:
    """Within its share of the range, in ratios where the range has them: twice as fast is as far as half as fast."""
    assert source.low is not None
    assert source.high is not None
    dice = random.Random(f"{path}/{of}")
    shares = [(number + dice.random()) / of for number in range(of)]
    dice.shuffle(shares)
    share = shares[draw - 1]
    if source.low <= 0:
        return source.low + share * (source.high - source.low)
    return float(source.low * (source.high / source.low) ** share)


def _with(section: T, path: str, values: Mapping[str, float]) -> T:
    """The section with the values whose paths lie in it."""
    changes: dict[str, Any] = {}
    for field in fields(section):  # type: ignore[arg-type]
        where = f"{path}.{field.name}" if path else field.name
        old = getattr(section, field.name)
        if where in values:
            changes[field.name] = round(values[where]) if isinstance(old, int) else values[where]
        elif is_dataclass(old):
            changes[field.name] = _with(old, where, values)
        elif isinstance(old, Mapping) and field.name != "sources":
            changes[field.name] = {key: values.get(f"{where}.{key}", entry) for key, entry in old.items()}
    return replace(section, **changes)  # type: ignore[type-var]
