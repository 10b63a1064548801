"""The chart of one tracked series: its nights, levels, changes and noise. What is drawn comes as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reports.drawing import COLOURS, INK, Alt, Frame, svg
from reports.values import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON = Mapping[str, Any]
NIGHTS, WORSE, BETTER = COLOURS[0], COLOURS[1], COLOURS[2]  # the legend of the page has the same
MOST_TICKS = 5
ROOM = 0.06  # of the span, above and below


def history_chart(series: JSON, scale: Scale, alt: Alt) -> Markup:
    """The axis is as long as the figures' span and not from zero: a change of some percent is what is looked for."""

    def draw(axes: Axes) -> None:
        _noise(axes, series, scale.factor)
        _levels(axes, series["levels"], scale.factor)
        _nights(axes, [night for night in series["nights"] if night["values"]], scale.factor)
        _marks(axes, series)
        _across(axes, [_day(night["night"]) for night in series["nights"]])
        axes.set(ylabel=scale.unit or None)
        axes.margins(y=ROOM)

    return svg(draw, alt, Frame(left_in=0.8))


def _nights(axes: Axes, nights: Sequence[JSON], factor: float) -> None:
    """Medians, and a line over all repeats; hollow where the machine was not fit."""
    for counts, filling in ((True, NIGHTS), (False, "none")):
        chosen = [night for night in nights if night["counts"] is counts]
        days = [_day(night["night"]) for night in chosen]
        repeats = [[value * factor for value in (*night["values"], *night["rerun"])] for night in chosen]
        if days:
            axes.vlines(
                days, [min(each) for each in repeats], [max(each) for each in repeats], color=NIGHTS, alpha=0.45
            )
            style: dict[str, Any] = {
                "marker": "o",
                "markersize": 4.5,
                "markerfacecolor": filling,
                "markeredgecolor": NIGHTS,
            }
            axes.plot(days, [night["median"] * factor for night in chosen], linestyle="none", **style)


def _levels(axes: Axes, levels: Sequence[JSON], factor: float) -> None:
    for level in levels:
        begin, end = _day(level["from"]), _day(level["to"])
        axes.hlines(level["value"] * factor, begin - 0.4, end + 0.4, color=INK, linewidth=1.2)


def _noise(axes: Axes, series: JSON, factor: float) -> None:
    """Around the present level: what lies inside is not told."""
    if series["bar"] is None or not series["levels"]:
        return
    level, reach = series["levels"][-1], 1 + series["bar"]
    low, high = level["value"] * factor / reach, level["value"] * factor * reach
    axes.fill_between(
        [_day(level["from"]) - 0.4, _day(level["to"]) + 0.4], low, high, color=INK, alpha=0.13, linewidth=0
    )


def _marks(axes: Axes, series: JSON) -> None:
    """Changes as lines over all of the chart, acknowledgements at the top, days without a night at the bottom."""
    for change in series["changes"]:
        colour = WORSE if change["is_worse"] else BETTER
        axes.axvline(_day(change["night"]) - 0.5, color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    edges: dict[str, Any] = {
        "transform": axes.get_xaxis_transform(),
        "linestyle": "none",
        "clip_on": False,
        "color": INK,
    }
    for nights, place, marker in (
        ([ack["night"] for ack in series["acks"]], 1.0, "v"),
        (series["missing"], 0.015, "|"),
    ):
        if nights:
            axes.plot([_day(night) for night in nights], [place] * len(nights), marker=marker, markersize=6, **edges)


def _across(axes: Axes, days: Sequence[int]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(min(days) - 0.8, max(days) + 0.8)
    axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _written(value)))


def _written(value: float) -> str:
    return date.fromordinal(int(value)).strftime("%m-%d") if value >= 1 and float(value).is_integer() else ""


def _day(night: str) -> int:
    return date.fromisoformat(night).toordinal()
