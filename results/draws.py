"""What a simulated cell's figures are on other machines that its catalogue entry may as well describe.

The entry's uncertain constants have ranges; `values` holds each metric on machines drawn from them. The k-th draw is
the same machine for every engine, so two cells are compared draw by draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from results.errors import ResultsError
from results.fields import Fields

Band = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Draws:
    """`values`: by metric, one for each draw; None where the cell could not run on that machine."""

    constants: tuple[str, ...]  # what was drawn: dotted paths of the catalogue entry
    values: Mapping[str, tuple[float | None, ...]]

    def band(self, metric: str, nominal: float) -> Band | None:
        """From the least to the most, the entry's own value among them; None where the metric was not drawn."""
        found = [value for value in self.values.get(metric, ()) if value is not None]
        return (min(nominal, *found), max(nominal, *found)) if found else None

    def to_json(self) -> dict[str, object]:
        return {"constants": list(self.constants), "values": {key: list(row) for key, row in self.values.items()}}

    @classmethod
    def from_json(cls, data: object, source: str) -> Draws:
        fields = Fields.of(data, source)
        values = {key: _row(row, f"{source}.values.{key}") for key, row in fields.mapping("values").items()}
        return cls(fields.texts("constants", ()), values)


def ratio_band(ours: Draws, theirs: Draws, metric: str, nominal: float) -> Band | None:
    """Of our figure over theirs, draw by draw."""
    pairs = zip(ours.values.get(metric, ()), theirs.values.get(metric, ()), strict=False)
    found = [a / b for a, b in pairs if a is not None and b]
    return (min(nominal, *found), max(nominal, *found)) if found else None


def _row(row: object, source: str) -> tuple[float | None, ...]:
    if not isinstance(row, list) or not all(value is None or isinstance(value, int | float) for value in row):
        raise ResultsError(f"{source}: expected a list of numbers")
    return tuple(row)
