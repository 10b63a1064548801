"""Was it fair: the budget that every engine was given, what each of them really took, and every note about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reports import labels
from reports.rendering import Section, render
from reports.values import ABSENT, figure, flatten, listing, quantity
from results.query import Run
from results.schema import CellSummary


@dataclass(frozen=True, slots=True)
class Row:
    """One resolved property over all engines."""

    key: str
    values: tuple[str, ...]
    differs: bool


def build(run: Run) -> Section:
    budget = run.manifest.config.get("budget")
    resolved = [[dict(flatten(cell.resolved)) for cell in run.cells if cell.engine == engine] for engine in run.engines]
    body = render(
        "envelope.html",
        label=labels.of(run.cells),
        budget=[(key, quantity(key, value)) for key, value in flatten(budget if isinstance(budget, Mapping) else {})],
        engines=run.engines,
        rows=_rows(resolved),
        notes=_grouped(run, ((note, cell) for cell in run.cells for note in cell.notes)),
        unavailable=_grouped(
            run, ((f"{column}: {why}", cell) for cell in run.cells for column, why in cell.unavailable.items())
        ),
    )
    return Section("envelope", "Fairness", body)


def _rows(resolved: list[list[dict[str, object]]]) -> list[Row]:
    keys = dict.fromkeys(key for cells in resolved for cell in cells for key in cell)
    rows = []
    for key in keys:
        values = tuple(_summary(key, [cell[key] for cell in cells if key in cell]) for cells in resolved)
        rows.append(Row(key, values, len(set(values)) > 1))
    return rows


def _summary(key: str, values: list[object]) -> str:
    """One value where the engine's cells agree; a range or a list where they do not."""
    written = list(dict.fromkeys(quantity(key, value) for value in values))
    if len(written) < 2:
        return written[0] if written else ABSENT
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        return f"{quantity(key, min(numbers))} to {quantity(key, max(numbers))}"
    return f"{', '.join(written[:3])}{f' and {figure(len(written) - 3)} more' if len(written) > 3 else ''}"


def _grouped(run: Run, notes: Iterable[tuple[str, CellSummary]]) -> list[tuple[str, str]]:
    """Each note once, with where it applies; clipping first, because it concerns every engine alike."""
    where: dict[str, dict[str, None]] = {}
    for note, cell in notes:
        where.setdefault(note, {})[f"{cell.engine} on {cell.workload}"] = None
    found = [(note, _places(run, list(places))) for note, places in where.items()]
    return sorted(found, key=lambda item: "clip" not in item[0].lower())


def _places(run: Run, places: list[str]) -> str:
    if len(places) > 1 and len(places) == len(run.groups()):
        return "everywhere"
    return listing(places) if len(places) <= 4 else f"{', '.join(places[:3])} and {len(places) - 3} more"
