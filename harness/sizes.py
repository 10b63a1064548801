"""Byte sizes as people write them: "14.6GiB" in a configuration, 14.6 GiB in a table."""

from __future__ import annotations

import math
import re

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: object) -> int:
    """Bytes from 1024, "14.6GiB" or "300 MB"; a ValueError says what was expected."""
    match = PATTERN.fullmatch(str(text)) if isinstance(text, str | int | float) and not isinstance(text, bool) else None
    unit = UNITS.get(match[2].upper() or "B") if match else None
    if not match or unit is None or not math.isfinite(float(match[1])):
        raise ValueError(f'expected a size such as "14.6GiB", "300MB" or a number of bytes, not {text!r}')
    size = int(float(match[1]) * unit)
    if size <= 0:
        raise ValueError(f"expected a size above zero, not {text!r}")
    return size


def format_bytes(size: float) -> str:
    """The largest binary unit that keeps the number above one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
