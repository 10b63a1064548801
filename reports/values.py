"""How a value is written for a person: significant digits, sensible units, a dash for what is not there.

Knows the unit suffixes that keys end in (`_s`, `_bytes`, ...) and nothing about what the keys mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

ABSENT = "–"
GAP = "\u00a0"  # between a number and its unit, where no line breaks


@dataclass(frozen=True, slots=True)
class Scale:
    """One unit for a whole column or axis: values are multiplied by `factor` and printed with `decimals`."""

    unit: str
    factor: float
    decimals: int = 0

    def write(self, value: float) -> str:
        return f"{value * self.factor:,.{self.decimals}f}"


_TIME_UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}


def time_unit(seconds: Iterable[float]) -> str:
    """Microseconds, milliseconds or seconds, whichever suits the largest; milliseconds where there is nothing."""
    largest = max((abs(value) for value in seconds), default=0.0)
    return "s" if largest >= 10 else "ms" if largest >= 1e-3 or largest == 0 else "µs"


def time_scale(seconds: Iterable[float], unit: str = "") -> Scale:
    """The unit given, or the one that suits these times, and decimals for it."""
    values = [abs(value) for value in seconds]
    unit = unit or time_unit(values)
    factor = _TIME_UNITS[unit]
    return Scale(unit, factor, _decimals([value * factor for value in values]))


def byte_scale(sizes: Iterable[float]) -> Scale:
    """The unit that suits the largest."""
    largest, factor = max((abs(size) for size in sizes), default=0.0), 1.0
    for unit in ("B", "KiB", "MiB", "GiB"):
        if largest * factor < 1024:
            return Scale(unit, factor)
        factor /= 1024
    return Scale("TiB", factor)


def plain_scale(values: Iterable[float], unit: str = "") -> Scale:
    """Counts stay whole numbers; all else gets decimals."""
    values = [abs(value) for value in values]
    whole = all(float(value).is_integer() for value in values)
    return Scale(unit, 1.0, 0 if whole else _decimals(values))


def _decimals(values: list[float]) -> int:
    """Three digits of the smallest, if the largest then needs no more than four, but always three of the largest."""
    values = [value for value in values if value > 0]
    if not values:
        return 0
    large, small = math.floor(math.log10(max(values))), math.floor(math.log10(min(values)))
    return min(3, max(0, 2 - large, min(2 - small, 3 - large)))


def figure(value: float) -> str:
    """A number on its own, to three significant digits; whole numbers and those above 1,000 in full."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def seconds(value: float) -> str:
    scale = time_scale([value])
    return f"{figure(value * scale.factor)}{GAP}{scale.unit}"


def byte_count(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{figure(value)}{GAP}{unit}"
        value /= 1024
    return f"{figure(value)}{GAP}TiB"


def quantity(key: str, value: object) -> str:
    """A value with the unit that its key names."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(key, value)
    if isinstance(value, list | tuple):
        return ", ".join(quantity(key, item) for item in value) or ABSENT
    return str(value)


def _number(key: str, value: float) -> str:
    words = key.rsplit(".", 1)[-1].split("_")
    if "bytes" in words:
        return byte_count(value) + ("/s" if words[-2:] == ["per", "s"] else "")
    if ("s" in words and "per" not in words) or words[-1] == "seconds":
        return seconds(value)
    return figure(value)


def span(low: str, high: str) -> str:
    """`3–7`, or one of them where both are written alike."""
    return low if low == high else f"{low}–{high}"


def percent(share: float, decimals: int = 0) -> str:
    return f"{share * 100:.{decimals}f}{GAP}%"


def moment(utc: str) -> str:
    """An ISO time in UTC as people read it; anything else as it is."""
    return f"{utc[:10]} {utc[11:19]} UTC" if re.fullmatch(r"[\d-]{10}T[\d:]{8}(\.\d+)?(Z|\+00:00)", utc) else utc


def flatten(data: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested mappings as dotted keys, in their order; lists stay values."""
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def listing(items: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    words = list(items)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def count(number: int, noun: str) -> str:
    """`1 repeat`, `3 repeats`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
