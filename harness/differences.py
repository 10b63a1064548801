"""What a check found: differences, one line each, and what had to be taken as it was recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

CLOSE = 1e-9  # relative: sums may be taken in another order on another machine
NEXT_TO_ZERO = 1e-12  # what is left where two sums cancel
NOTHING = "nothing"
_LONGEST = 160


@dataclass(frozen=True, slots=True)
class Difference:
    file: str
    what: str
    expected: str
    found: str

    def line(self) -> str:
        return f"{self.file}: {self.what}: expected {self.expected}, found {self.found}"


@dataclass(slots=True)
class Ledger:
    """Of one verification. `as_recorded`: why, by what it is, with the number of times."""

    differences: list[Difference] = field(default_factory=list)
    as_recorded: dict[tuple[str, str], int] = field(default_factory=dict)
    recomputed: int = 0

    def differs(self, file: str, what: str, expected: object, found: object) -> None:
        self.differences.append(Difference(file, what, shown(expected), shown(found)))

    def compare(self, file: str, what: str, expected: object, found: object) -> None:
        """Of plain JSON data, all the way down."""
        self.recomputed += 1
        for where, one, other in unequal(expected, found, what):
            self.differs(file, where, one, other)

    def take(self, what: str, why: str) -> None:
        self.as_recorded[what, why] = self.as_recorded.get((what, why), 0) + 1


def shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def unequal(expected: object, found: object, where: str) -> Iterator[tuple[str, object, object]]:
    """Every place where two values differ, deepest first: dictionaries by key, lists by position, numbers closely."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys((*expected, *found)):
            yield from unequal(expected.get(key, NOTHING), found.get(key, NOTHING), f"{where}.{key}")
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            yield f"{where}, length", len(expected), len(found)
        for at, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from unequal(one, other, f"{where}[{at}]")
    elif not _is_equal(expected, found):
        yield where, expected, found


def _is_equal(expected: object, found: object) -> bool:
    numbers = [value for value in (expected, found) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2:
        return math.isclose(*numbers, rel_tol=CLOSE, abs_tol=NEXT_TO_ZERO)
    return type(expected) is type(found) and expected == found
