"""TwinPilots' statistics tracker: how far from its prediction the work of each unit is, and when that calls for a plan.

A value is observed / predicted time of a unit's work in one step. No clock is read: equal observations in equal order
give equal answers, so that a journal of them replays the decisions.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

Key = str | int | tuple[str, ...]  # a unit, say


@dataclass(slots=True)
class Tracker:
    """Running means whose weights halve every `half_life` observations of the same key.

    `patience`: so many observations in a row must be past the band, all to the same side. One slow step would keep a
    mean outside for many more; it is not by itself a reason to plan anew.
    """

    half_life: float = 8.0
    patience: int = 3
    _means: dict[Key, float] = field(default_factory=dict, init=False)
    _base: dict[Key, float] = field(default_factory=dict, init=False)
    _last: dict[Key, deque[float]] = field(default_factory=dict, init=False)  # since the last rebase

    def __post_init__(self) -> None:
        if not self.half_life > 0 or self.patience < 1:
            raise ValueError(f"half_life above 0 and patience of 1 or more, not {self.half_life} and {self.patience}")

    def observe(self, key: Key, ratio: float) -> None:
        """The first of a key is taken as it is."""
        if not 0 < ratio < math.inf:
            raise ValueError(f"{key}: observed / predicted must be above 0 and finite, not {ratio}")
        mean = self._means.get(key, ratio)
        self._means[key] = mean + (ratio - mean) * (1.0 - 0.5 ** (1.0 / self.half_life))
        self._last.setdefault(key, deque(maxlen=self.patience)).append(ratio)

    def scale(self, key: Key) -> float:
        """By what to multiply a prediction; 1 where nothing was observed."""
        return self._means.get(key, 1.0)

    def drifted(self, band: float) -> bool:
        """Whether a scale has left [1 / (1 + band), 1 + band] times what it was at the last rebase, to stay."""
        if not 0 < band < math.inf:
            raise ValueError(f"the band must be above 0 and finite, not {band}")
        return any(self._left(key, 1.0 + band) for key in self._last)

    def rebase(self) -> None:
        """A plan was made with the scales of now: drift is counted from here."""
        self._base = dict(self._means)
        self._last.clear()

    def _left(self, key: Key, most: float) -> bool:
        base, last = self._base.get(key, 1.0), self._last[key]
        if len(last) < self.patience:
            return False
        relative = [value / base for value in (self.scale(key), *last)]
        return min(relative) > most or max(relative) < 1.0 / most
