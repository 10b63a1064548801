"""Why throughput changed, drawn: a bar per cause from the figure before to the figure after, and the same as a table.

`section` is for any page that knows two cells: the page of a comparison, or one that follows runs over time. What the
causes are is results/waterfall.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from reports.answer_page import answer_page
from reports.drawing import COLOURS, INK, RULE, Alt, Frame, svg
from reports.labels import MEANING
from reports.rendering import render
from reports.values import ABSENT, count, figure, listing, percent
from results.schema import Label
from results.waterfall import FORMULA, MEANINGS, Term, Waterfall

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAIN, LOSS, WHOLE = 2, 1, 0  # colours, by their place in the page's list
SMALL = 0.005  # of the change and of the largest term: such causes are in the table and have no bar
MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Explained:
    """One engine on one workload. `label`: measured, emulated or simulated. No waterfall: the reason why not."""

    engine: str
    workload: str
    label: str
    pairs: int
    waterfall: Waterfall | None
    reason: str = ""


def section(explained: Explained, key: str) -> Markup:
    """A figure and its table. `key` is unique in the page."""
    found = explained.waterfall
    if found is None:
        return render("waterfall.html", explained=explained, drawing=None, said="", rows=[], notes=[], speeds="")
    return render(
        "waterfall.html",
        explained=explained,
        drawing=drawing(
            found, Alt(key, f"{explained.engine} on {explained.workload}, {explained.label}: {_said(found)}")
        ),
        said=f"{_said(found)} Over the {found.window}, {count(explained.pairs, 'pair')}.",
        rows=[_row(term) for term in _by_size(found)],
        notes=found.notes,
        speeds=listing(f"{each.operator} ({each.unit}) {figure(each.ratio)} times" for each in found.speeds),
    )


def drawing(found: Waterfall, alt: Alt) -> Markup:
    """From before, cause by cause in the order of their size, to after; lost and won differ in hatches, too."""
    told = _drawn(found)
    rest = found.change - sum(term.tokens_per_s for term in told)
    names = ["before", *(str(term.cause) for term in told), *(["others"] if rest else []), "after"]
    steps = [*(term.tokens_per_s for term in told), *([rest] if rest else [])]

    def draw(axes: Axes) -> None:
        axes.barh(0, found.before, height=0.62, color=COLOURS[WHOLE])
        left = found.before
        for row, step in enumerate(steps, 1):
            colour, hatch = (COLOURS[GAIN], "") if step > 0 else (COLOURS[LOSS], "////")
            axes.barh(row, step, left=left, height=0.62, color=colour, hatch=hatch, edgecolor=RULE, linewidth=0.6)
            axes.plot([left + step] * 2, [row - 0.31, row + 1.31], color=RULE, linewidth=0.8)
            left += step
            axes.text(1.02, row, _signed(step), va="center", color=INK, transform=axes.get_yaxis_transform())
        axes.barh(len(steps) + 1, found.after, height=0.62, color=COLOURS[WHOLE])
        for row, value in ((0, found.before), (len(steps) + 1, found.after)):
            axes.text(1.02, row, figure(value), va="center", color=INK, transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="output tokens per second")
        axes.set_xlim(left=0)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)

    return svg(draw, alt, Frame(6.4, 0.75 + 0.34 * len(names), left_in=2.05, right_in=0.85))


def why_page(explained: Sequence[Explained], a: str, b: str, told: dict[str, str]) -> str:
    """`a` and `b` name the runs. `told`: command, date and commit."""
    labels = [label for label in Label if any(label in each.label.split(" against ") for each in explained)]
    return answer_page(
        "why.html",
        "Why throughput changed",
        "Comparison of two runs",
        told,
        labels=[(label, MEANING[label]) for label in labels],
        facts=[("Before", a), ("After", b)],
        sections=[section(each, f"why{index}") for index, each in enumerate(explained)],
        formula=FORMULA,
        causes=[(cause, meaning.says, meaning.measure) for cause, meaning in MEANINGS.items()],
    )


def _said(found: Waterfall) -> str:
    largest = _by_size(found)[:3]
    causes = listing(f"{term.cause} {_signed(term.tokens_per_s)}" for term in largest if term.tokens_per_s)
    change = f"{figure(found.before)} to {figure(found.after)} output tokens per second ({_signed(found.change)})."
    return f"{change} Most of it: {causes}." if causes else change


def _by_size(found: Waterfall) -> list[Term]:
    return sorted(found.terms, key=lambda term: -abs(term.tokens_per_s))


def _drawn(found: Waterfall) -> list[Term]:
    ordered = _by_size(found)
    least = SMALL * max(abs(found.change), abs(ordered[0].tokens_per_s))
    return [term for term in ordered if term.tokens_per_s and abs(term.tokens_per_s) >= least]


def _row(term: Term) -> dict[str, str]:
    return {
        "cause": str(term.cause),
        "tokens": _signed(term.tokens_per_s),
        "share": ABSENT if term.share is None else percent(term.share, 1),
        "measure": term.measure,
        "before": figure(term.before),
        "after": figure(term.after),
    }


def _signed(value: float) -> str:
    if abs(value) < 1e-9:
        return "0"
    return f"{'+' if value > 0 else MINUS}{figure(abs(value))}"
