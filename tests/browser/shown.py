"""Numbers as a page shows them, read back: the value, its unit, and how far it may be off by having been rounded."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS = {
    "%": 0.01,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "B": 1.0,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "TiB": 2.0**40,
}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<digits>-?\d[\d,]*(?:\.(?P<decimals>\d+))?)(?:e(?P<power>[+-]?\d+))?"
    r"(?:[ \u00a0](?P<unit>µs|ms|s|[KMGT]iB|B)\b|[ \u00a0]?(?P<percent>%))?"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A number of a text, in SI units where it had one of its own."""

    text: str
    value: float
    last_digit: float

    def is_rounded_from(self, exact: float) -> bool:
        """Half of the last digit either way, and what floats lose."""
        return abs(self.value - exact) <= 0.5 * self.last_digit * (1 + 1e-6) + 1e-12 * abs(exact)


def numbers(text: str, unit: str = "") -> list[Shown]:
    """All in the text, in order. `unit` is that of the column, for those without one of their own."""
    return [_shown(found, unit) for found in _NUMBER.finditer(text)]


def _shown(found: re.Match[str], unit: str) -> Shown:
    factor = UNITS.get(found["unit"] or found["percent"] or unit, 1.0) * 10.0 ** int(found["power"] or 0)
    value = float(found["digits"].replace(",", "")) * factor
    return Shown(found.group(), value, 10.0 ** -len(found["decimals"] or "") * factor)
