"""Why one run's throughput differs from another's, engine by engine: the mean of their pairs' waterfalls, in lines.

What the causes are and how the terms come about is results/waterfall.py's; which cells make a pair is compare.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from results.errors import ResultsError
from results.waterfall import Speed, Term, Waterfall, explain_change, mean_of

if TYPE_CHECKING:
    from reports.waterfalls import Explained

LEAST_SHARE = 0.005  # of the change, or of the largest term: smaller ones are summed up in a line
MOST_SPEEDS = 4


@dataclass(frozen=True, slots=True)
class Why:
    """`waterfall` is of the pairs that could be explained; None where none could, with the reason."""

    engine: str
    workload: str
    pairs: int
    waterfall: Waterfall | None
    reason: str = ""

    def lines(self, label: str) -> list[str]:
        place = f"why, {self.engine} on {self.workload}"
        found = self.waterfall
        if found is None:
            return [f"{place}: not known: {self.reason}"]
        pairs = f"{self.pairs} pair" + ("s" if self.pairs > 1 else "")
        head = (
            f"{place}: {found.before:.4g} -> {found.after:.4g} tokens/s ({found.window}, {pairs}), "
            f"{found.change:+.3g}{f', most of it {found.largest.cause}' if found.change else ''} [{label}]"
        )
        return [head, *(f"  {line}" for line in _term_lines(found)), *(f"  {note}" for note in found.notes)]

    def drawn(self, label: str) -> Explained:
        """As a page takes it."""
        from reports.waterfalls import Explained  # drawing is slow to import, and lines need none

        return Explained(self.engine, self.workload, label, self.pairs, self.waterfall, self.reason)

    def to_json(self) -> dict[str, object]:
        told = None if self.waterfall is None else self.waterfall.to_json()
        return {
            "engine": self.engine,
            "workload": self.workload,
            "pairs": self.pairs,
            "waterfall": told,
            "reason": self.reason,
        }


def explain_pairs(engine: str, workload: str, cells: Sequence[tuple[Path, Path]]) -> Why:
    """A pair whose records are not all there is left out; where none is left, the first reason stands."""
    found, reasons = [], []
    for before, after in cells:
        try:
            found.append(explain_change(before, after))
        except ResultsError as error:
            reasons.append(str(error))
    if found:
        return Why(engine, workload, len(found), mean_of(found))
    return Why(engine, workload, 0, None, reasons[0] if reasons else "no pair of valid cells")


def _term_lines(found: Waterfall) -> Iterator[str]:
    largest = max(abs(term.tokens_per_s) for term in found.terms)
    if not largest > 0:
        yield "nothing differs"
        return
    told = [term for term in found.terms if abs(term.tokens_per_s) >= LEAST_SHARE * max(largest, abs(found.change))]
    yield from map(_term_line, sorted(told, key=lambda term: -abs(term.tokens_per_s)))
    if others := [term for term in found.terms if term not in told]:
        yield f"{'others':24} {sum(term.tokens_per_s for term in others):+9.3g} tokens/s"
    if found.speeds:
        yield f"seconds per byte: {', '.join(map(_speed, found.speeds[:MOST_SPEEDS]))}"


def _term_line(term: Term) -> str:
    share = "" if term.share is None else f" ({100 * term.share:.0f} %)"
    return f"{term.cause:24} {term.tokens_per_s:+9.3g} tokens/s{share}; {term.measure} {_from_to(term)}"


def _from_to(term: Term) -> str:
    return f"{term.before:.3g} -> {term.after:.3g}"


def _speed(speed: Speed) -> str:
    return f"{speed.operator} ({speed.unit}) x {speed.ratio:.2f}"
