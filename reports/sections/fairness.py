"""Was it fair: one sentence first, then the budget that every engine was given and what each of them really took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports import labels, names
from reports.judgement import broke_parity, unfair
from reports.rendering import Section, render
from reports.sections import instrument, notes, workloads
from reports.values import ABSENT, count, figure, flatten, listing, quantity
from results.query import Run
from results.schema import CellSummary

# Entries of `resolved` that are about the requests or the experiment, not about the engine: they have tables of their
# own.
ABOUT_WORKLOAD = frozenset({"workload", "clipped", "saturation", "predictor"})


@dataclass(frozen=True, slots=True)
class Row:
    """One property over all engines."""

    title: str
    key: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


def build(run: Run) -> Section:
    budget = run.manifest.config.get("budget")
    budget = budget if isinstance(budget, Mapping) else {}
    rows, checked = _rows(run), _checked(run)
    body = render(
        "fairness.html",
        label=labels.of(run.cells),
        verdict=_verdict(run),
        took_more=_took_more(run),
        budget=[(names.title(key), key, _budget(key, value)) for key, value in flatten(budget)],
        engines=run.engines,
        visible=[*checked, *(row for row in rows if row.differs)],
        checked=bool(checked),
        remarks=notes.alike((cell, cell.parity.note) for cell in run.cells if cell.parity and cell.parity.held is None),
        alike=[row for row in rows if not row.differs],
        workloads=workloads.build(run),
        notes=notes.build(run),
        instrument=instrument.build(run),
    )
    return Section("fairness", "Fairness", body)


def _verdict(run: Run) -> str:
    """The first sentence. Engines that took more follow one by one; those that reported nothing are named."""
    silent = [engine for engine in run.engines if not any(cell.resolved for cell in _cells(run, engine))]
    if len(silent) == len(run.engines):
        return "No engine reported what it took."
    unfair_ones = _took_more(run)
    if unfair_ones:
        sentence = f"{listing(engine for engine, _ in unfair_ones)} went beyond the envelope that all were given."
    else:
        who = "Every engine that reported" if silent else "Every engine"
        sentence = f"{who} took what the envelope allows."
    return f"{sentence} {listing(silent)} reported nothing." if silent else sentence


def _took_more(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Per engine the differences, each with where it was seen."""
    found = []
    for engine in run.engines:
        cells = _cells(run, engine)
        differences = [(text, _where(text, cells)) for text in unfair(cells)]
        if differences:
            found.append((engine, differences))
    return found


def _where(difference: str, cells: Sequence[CellSummary]) -> str:
    """Empty when it is so on every workload."""
    places = list(dict.fromkeys(cell.workload for cell in cells if difference in cell.unfair))
    return "" if len(places) == len({cell.workload for cell in cells}) else f"on {listing(places)}"


def _cells(run: Run, engine: str) -> list[CellSummary]:
    return [cell for cell in run.cells if cell.engine == engine]


def _rows(run: Run) -> list[Row]:
    resolved = [[dict(_resolved(cell)) for cell in _cells(run, engine)] for engine in run.engines]
    keys = dict.fromkeys(key for cells in resolved for cell in cells for key in cell)
    return [_row(key, [[cell[key] for cell in cells if key in cell] for cells in resolved]) for key in keys]


def _row(key: str, values: Sequence[list[object]]) -> Row:
    return Row(names.title(key), key, tuple(_summary(key, found) for found in values))


def _resolved(cell: CellSummary) -> Iterable[tuple[str, object]]:
    return flatten({key: value for key, value in cell.resolved.items() if key not in ABOUT_WORKLOAD})


def _budget(key: str, value: object) -> str:
    return quantity(f"{key}_bytes" if key.endswith("memory") else key, value)


def _summary(key: str, values: list[object]) -> str:
    """One value where the engine's cells agree; a range or a list where they do not."""
    written = list(dict.fromkeys(quantity(key, value) for value in values))
    if len(written) < 2:
        return written[0] if written else ABSENT
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        return f"{quantity(key, min(numbers))} to {quantity(key, max(numbers))}"
    return f"{', '.join(written[:3])}{f' and {figure(len(written) - 3)} more' if len(written) > 3 else ''}"


def _checked(run: Run) -> list[Row]:
    """How the check of every engine's tokens went; nothing when no cell of the run speaks of it."""
    if not any(cell.parity for cell in run.cells):
        return []
    found = [_parity(_cells(run, engine)) for engine in run.engines]
    titles = ("Tokens against the reference", "Tokens checked", "Near-ties excused")
    rows = [Row(title, "parity", values) for title, values in zip(titles, zip(*found, strict=True), strict=True)]
    return [row for row in rows if set(row.values) - {"", "0"}]


def _parity(cells: Sequence[CellSummary]) -> tuple[str, str, str]:
    """The outcome, how much was checked, and how many differences rounding accounts for."""
    if any(broke_parity(cell) for cell in cells):
        return "wrong", "", ""
    checks = [cell.parity for cell in cells if cell.parity and cell.parity.held]
    if not checks:
        return "not checked", "", ""
    tokens, requests = sum(check.checked_tokens for check in checks), sum(check.checked_requests for check in checks)
    return "right", f"{tokens:,} of {count(requests, 'request')}", f"{sum(check.excused for check in checks):,}"
