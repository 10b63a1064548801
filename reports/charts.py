"""The figures of the report, one function each.

How a figure becomes part of the page is `drawing`'s; what it shows is reduced to little before it comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from reports.drawing import COLOURS, INK, RULE, SERIES, Alt, Frame, line, svg
from reports.estimates import Estimate
from reports.latencies import Curve
from reports.predictions import Points
from reports.timelines import Busy, Timeline
from reports.values import Scale, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


WIDE = 30  # values that span more than this factor get a logarithmic axis


@dataclass(frozen=True, slots=True)
class Sweep:
    """One engine's line over a sweep; the points are in the order of what was swept."""

    slot: int
    across: tuple[float, ...]
    up: tuple[Estimate, ...]


def ecdf(curves: Sequence[tuple[int, Curve]], scale: Scale, alt: Alt) -> Markup:
    """Cumulative distributions, one line per engine slot; the axis is logarithmic when times span a factor of 30."""

    def draw(axes: Axes) -> None:
        import seaborn

        for slot, curve in curves:
            weights = np.diff(curve.share, prepend=0.0)
            frame = pd.DataFrame({"time": curve.seconds * scale.factor, "weight": weights})
            seaborn.ecdfplot(data=frame, x="time", weights="weight", ax=axes, **line(slot))
        low = min(float(curve.seconds[0]) for _, curve in curves) * scale.factor
        high = max(float(curve.seconds[-1]) for _, curve in curves) * scale.factor
        if high > WIDE * low:
            _logarithmic(axes, "x", low, high)
        else:
            axes.set_xlim(0, high * 1.03)
        unit = f"{scale.unit}, logarithmic" if axes.get_xscale() == "log" else scale.unit
        axes.set(xlabel=unit, ylabel=None, ylim=(0, 1.02))

    return svg(draw, alt)


def over_time(
    series: Sequence[tuple[int, Sequence[Timeline]]], column: str, alt: Alt, scale: Scale | None = None
) -> Markup:
    """A value over the serving time: the median of the repeats, and a band from the lowest to the highest of them."""
    factor = scale.factor if scale else 1.0

    def draw(axes: Axes) -> None:
        import seaborn

        for slot, timelines in series:
            seaborn.lineplot(
                data=_repeats(timelines, column).assign(value=lambda frame: frame["value"] * factor),
                x="time",
                y="value",
                ax=axes,
                estimator="median",
                errorbar=("pi", 100) if len(timelines) > 1 else None,
                err_kws={"alpha": 0.15, "linewidth": 0},
                **line(slot),
            )
        axes.set(xlabel="serving time, s", ylabel=scale.unit if scale else None)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)

    return svg(draw, alt)


def busy_bars(slot: int, busy: Busy, units: Sequence[tuple[str, str]], alt: Alt) -> Markup:
    """One bar per unit over the serving time: busy, idle inside steps (pale), and between steps (left open)."""

    def draw(axes: Axes) -> None:
        for row, (unit, _) in enumerate(units):
            working, bubble, _ = busy.share(unit)
            axes.barh(row, working * 100, height=0.62, color=COLOURS[slot % SERIES])
            axes.barh(row, bubble * 100, left=working * 100, height=0.62, color=COLOURS[slot % SERIES], alpha=0.25)
            axes.barh(row, 100, height=0.62, fill=False, edgecolor=RULE, linewidth=0.8)
            axes.text(103, row, percent(working), va="center", color=INK)
        axes.set_yticks(range(len(units)), [title for _, title in units])
        axes.set(xlim=(0, 120), xlabel="% of serving time")
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_bounds(0, 100)

    return svg(draw, alt, Frame(3.9, 0.65 + 0.36 * len(units), left_in=0.95, right_in=0.05))


@dataclass(frozen=True, slots=True)
class Stack:
    """One bar: its name, and the colour and the length of each of its pieces, in percent of the longest bar."""

    title: str
    pieces: tuple[tuple[int, float], ...]


def stacked_bars(stacks: Sequence[Stack], alt: Alt) -> Markup:
    """Sums of pieces, each piece set apart from its neighbours whatever their colours."""

    def draw(axes: Axes) -> None:
        for row, stack in enumerate(stacks):
            left = 0.0
            for colour, length in stack.pieces:
                axes.barh(row, length, left=left, height=0.62, color=COLOURS[colour], edgecolor=RULE, linewidth=0.6)
                left += length
        axes.set_yticks(range(len(stacks)), [stack.title for stack in stacks])
        axes.set(xlim=(0, 101), xlabel="% of the engine with most")
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)

    return svg(draw, alt, Frame(3.9, 0.65 + 0.36 * len(stacks), left_in=0.95, right_in=0.15))


def predicted(slot: int, points: Points, scale: Scale, alt: Alt) -> Markup:
    """Predicted against observed times, on like axes, and the line on which they agree; darker is more steps."""

    def draw(axes: Axes) -> None:
        across, up = points.observed_s * scale.factor, points.predicted_s * scale.factor
        low, high = min(across.min(), up.min()) / 1.15, max(across.max(), up.max()) * 1.15
        axes.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for alpha, chosen in zip((0.35, 0.6, 1.0), _classes(points.steps), strict=True):
            axes.plot(
                across[chosen],
                up[chosen],
                linestyle="none",
                marker="o",
                markersize=4.5,
                markeredgewidth=0,
                color=COLOURS[slot % SERIES],
                alpha=alpha,
            )
        if high > 6 * low:
            _logarithmic(axes, "x", low, high)
            _logarithmic(axes, "y", low, high)
        else:
            axes.set(xlim=(low, high), ylim=(low, high))
            axes.locator_params(nbins=5)
        axes.set(xlabel=f"observed, {scale.unit}", ylabel=f"predicted, {scale.unit}")

    return svg(draw, alt, Frame(3.6, 3.1, left_in=0.75))


def curves(lines: Sequence[Sweep], scale: Scale, across: str, alt: Alt) -> Markup:
    """A figure over what was swept, one line per engine, with the span of every point."""

    def draw(axes: Axes) -> None:
        for sweep in lines:
            _points(axes, sweep.slot, sweep.across, sweep.up, scale)
        values = [estimate.value * scale.factor for sweep in lines for estimate in sweep.up]
        unit = _from_zero_or_logarithmic(axes, values)
        axes.set_xlim(0, max(place for sweep in lines for place in sweep.across) * 1.05)
        axes.set(xlabel=across, ylabel=", ".join(word for word in (scale.unit, unit) if word) or None)

    return svg(draw, alt, Frame(left_in=0.75))


def front(lines: Sequence[Sweep], best: Sequence[tuple[float, float]], scale: Scale, across: str, alt: Alt) -> Markup:
    """Latency against throughput; the points that no other point beats in both are ringed and joined."""

    def draw(axes: Axes) -> None:
        for sweep in lines:
            _points(axes, sweep.slot, sweep.across, sweep.up, scale)
        axes.plot(
            [place for place, _ in best],
            [value * scale.factor for _, value in best],
            color=INK,
            linewidth=0.9,
            marker="o",
            markersize=10,
            markerfacecolor="none",
            markeredgewidth=1.1,
            zorder=1,
        )
        unit = _from_zero_or_logarithmic(axes, [value.value * scale.factor for sweep in lines for value in sweep.up])
        axes.set(xlabel=across, ylabel=", ".join(word for word in (scale.unit, unit) if word))

    return svg(draw, alt, Frame(left_in=0.75))


def _classes(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], ...]:
    """Few, some, most: by how many steps a point stands for, against the fullest point."""
    share = np.log1p(counts) / np.log1p(counts.max())
    few, most = share < 1 / 3, share >= 2 / 3
    return few, ~few & ~most, most


def _points(axes: Axes, slot: int, across: Sequence[float], up: Sequence[Estimate], scale: Scale) -> None:
    values = np.array([[value.value, value.low, value.high] for value in up]) * scale.factor
    style = line(slot)
    axes.vlines(across, values[:, 1], values[:, 2], color=style["color"], linewidth=1.0, alpha=0.6)
    axes.plot(across, values[:, 0], marker="o", markersize=4, **style)


def _from_zero_or_logarithmic(axes: Axes, values: Sequence[float]) -> str:
    """Gives the word for the axis; a logarithmic one has no zero."""
    low, high = min(values), max(values)
    if low > 0 and high > WIDE * low:
        _logarithmic(axes, "y", low / 1.1, high * 1.1)
        return "logarithmic"
    axes.set_ylim(bottom=0)
    return ""


def _repeats(timelines: Sequence[Timeline], column: str) -> pd.DataFrame:
    """Repeats end at different times: all are put on the bins of the longest, each as far as it went."""
    longest = max(timelines, key=lambda timeline: timeline.bin_s)
    frames = []
    for timeline in timelines:
        values = np.interp(longest.time_s, timeline.time_s, timeline.values[column], right=np.nan)
        frames.append(pd.DataFrame({"time": longest.time_s, "value": values}))
    return pd.concat(frames, ignore_index=True).dropna()


def _logarithmic(axes: Axes, side: Literal["x", "y"], low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if side == "x" else axes.yaxis
    axes.set(**{f"{side}scale": "log", f"{side}lim": (low / 1.1, high * 1.1)})
    few_decades = high / low < 100
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
