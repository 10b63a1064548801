"""Reading one entry of a configuration: every key known, every value checked, every mistake named.

Not a schema library: an entry has a handful of keys whose set depends on its `kind`, and this package imports nothing
but numpy. Values are read with the type they must have; a float is no whole number, a string no number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from workloads.types import MAX_TOKENS, WorkloadError


class Options:
    """One mapping of the configuration, with `defaults` (whose keys are the known ones) under it."""

    def __init__(self, where: str, given: Mapping[str, object], defaults: Mapping[str, object]) -> None:
        for key in given:
            if key not in defaults:
                raise WorkloadError(f"{where}: unknown key {key!r}{did_you_mean(key, defaults)}")
        self.where = where
        self._values = {**defaults, **{key: value for key, value in given.items() if value is not None}}

    def given(self, key: str) -> bool:
        return self._values.get(key) is not None

    def value(self, key: str) -> object:
        return self._values[key]

    def whole(self, key: str, minimum: int = 1, maximum: int = MAX_TOKENS) -> int:
        value = self._required(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.mistake(key, f"must be a whole number, not {shown(value)}")
        if not minimum <= value <= maximum:
            raise self.mistake(key, f"must be {minimum} to {maximum}, not {shown(value)}")
        return value

    def positive(self, key: str) -> float:
        value = self._number(key)
        if value <= 0:
            raise self.mistake(key, f"must be more than 0, not {shown(value)}")
        return value

    def between(self, key: str, low: float, high: float) -> float:
        value = self._number(key)
        if not low <= value <= high:
            raise self.mistake(key, f"must be {low:g} to {high:g}, not {shown(value)}")
        return value

    def text(self, key: str) -> str:
        value = self._required(key)
        if not isinstance(value, str) or not value:
            raise self.mistake(key, f"must be text, not {shown(value)}")
        return value

    def choice(self, key: str, known: Iterable[str]) -> str:
        value, names = self.text(key), list(known)
        if value not in names:
            raise self.mistake(key, f"{shown(value)} is not known{did_you_mean(value, names)}")
        return value

    def mistake(self, key: str, what: str) -> WorkloadError:
        return WorkloadError(f"{self.where}: {key} {what}")

    def _required(self, key: str) -> object:
        value = self._values.get(key)
        if value is None:
            raise self.mistake(key, "is missing")
        return value

    def _number(self, key: str) -> float:
        value = self._required(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.mistake(key, f"must be a number, not {shown(value)}")
        try:
            number = float(value)
        except OverflowError:  # a whole number beyond the range of floats
            number = math.inf
        if not math.isfinite(number):
            raise self.mistake(key, f"must be a finite number, not {shown(value)}")
        return number


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    names = list(known)
    close = get_close_matches(str(word), names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(names)})"


def shown(value: object) -> str:
    """A value for a message: one line, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
