"""Figures as inline SVG that belongs to the page: its colours are the page's variables, its text the page's font.

seaborn and matplotlib are imported when the first figure is drawn, and used without pyplot's state, so nothing is left
behind. Text in a figure is ours only; names of engines stand in the HTML around it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from reports.latencies import Curve
from reports.timelines import Busy, Timeline
from reports.values import Scale, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A figure is drawn in marker colours that become variables of the style sheet: light, dark and print differ only there.
SERIES = 8
_COLOURS = tuple(f"#fe01{slot:02x}" for slot in range(SERIES))
_INK, _RULE = "#fe0200", "#fe0201"
_VARIABLES = {colour: f"var(--s{slot})" for slot, colour in enumerate(_COLOURS)} | {
    _INK: "var(--muted)",
    _RULE: "var(--rule)",
}
# Lines differ in dashes too, for eyes and printers without colour. The legend in the page uses the same list.
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 2),
    (1.5, 1.5),
    (7, 2, 1.5, 2),
    (3, 1.5),
    (9, 3),
    (1, 2.5),
    (5, 1.5, 1, 1.5),
)

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hybrid-harness",
    "text.parse_math": False,
    "font.size": 11,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.minor.visible": False,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True, slots=True)
class Alt:
    """What a figure is called in the page (unique) and what it says to those who do not see it."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """Size and margins in inches of 72 points: a panel is 360 points wide, as a phone is.

    Margins are fixed, because having them computed costs more than drawing the figure, and panels then line up.
    """

    width_in: float = 5.0
    height_in: float = 3.0
    left_in: float = 0.6
    right_in: float = 0.15
    bottom_in: float = 0.55
    top_in: float = 0.1

    @property
    def inside(self) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of the axes as shares of the figure."""
        across = self.width_in - self.left_in - self.right_in
        upwards = self.height_in - self.bottom_in - self.top_in
        shares = self.left_in / self.width_in, self.bottom_in / self.height_in
        return *shares, across / self.width_in, upwards / self.height_in


def ecdf(curves: Sequence[tuple[int, Curve]], scale: Scale, alt: Alt) -> Markup:
    """Cumulative distributions, one line per engine slot; the axis is logarithmic when times span a factor of 30."""

    def draw(axes: Axes) -> None:
        import seaborn

        for slot, curve in curves:
            weights = np.diff(curve.share, prepend=0.0)
            frame = pd.DataFrame({"time": curve.seconds * scale.factor, "weight": weights})
            seaborn.ecdfplot(data=frame, x="time", weights="weight", ax=axes, **_line(slot))
        low = min(float(curve.seconds[0]) for _, curve in curves) * scale.factor
        high = max(float(curve.seconds[-1]) for _, curve in curves) * scale.factor
        if high > 30 * low:
            _logarithmic(axes, low, high)
        else:
            axes.set_xlim(0, high * 1.03)
        unit = f"{scale.unit}, logarithmic" if axes.get_xscale() == "log" else scale.unit
        axes.set(xlabel=unit, ylabel=None, ylim=(0, 1.02))

    return _svg(draw, alt)


def over_time(series: Sequence[tuple[int, Sequence[Timeline]]], column: str, alt: Alt) -> Markup:
    """A value over the serving time: the median of the repeats, and a band from the lowest to the highest of them."""

    def draw(axes: Axes) -> None:
        import seaborn

        for slot, timelines in series:
            seaborn.lineplot(
                data=_repeats(timelines, column),
                x="time",
                y="value",
                ax=axes,
                estimator="median",
                errorbar=("pi", 100) if len(timelines) > 1 else None,
                err_kws={"alpha": 0.15, "linewidth": 0},
                **_line(slot),
            )
        axes.set(xlabel="s", ylabel=None)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)

    return _svg(draw, alt)


def busy_bars(slot: int, busy: Busy, units: Sequence[tuple[str, str]], alt: Alt) -> Markup:
    """One bar per unit over the serving time: busy, idle inside steps (pale), and between steps (left open)."""

    def draw(axes: Axes) -> None:
        for row, (unit, _) in enumerate(units):
            working, bubble, _ = busy.share(unit)
            axes.barh(row, working * 100, height=0.62, color=_COLOURS[slot % SERIES])
            axes.barh(row, bubble * 100, left=working * 100, height=0.62, color=_COLOURS[slot % SERIES], alpha=0.25)
            axes.barh(row, 100, height=0.62, fill=False, edgecolor=_RULE, linewidth=0.8)
            axes.text(103, row, percent(working), va="center", color=_INK)
        axes.set_yticks(range(len(units)), [title for _, title in units])
        axes.set(xlim=(0, 120), xlabel="% of serving time")
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_bounds(0, 100)

    return _svg(draw, alt, _Frame(3.9, 0.65 + 0.36 * len(units), left_in=0.95, right_in=0.05))


def _line(slot: int) -> dict[str, Any]:
    dashes = DASHES[slot % len(DASHES)]
    return {"color": _COLOURS[slot % SERIES], "linestyle": (0, dashes) if dashes else "solid"}


def _repeats(timelines: Sequence[Timeline], column: str) -> pd.DataFrame:
    """Repeats end at different times: all are put on the bins of the longest, each as far as it went."""
    longest = max(timelines, key=lambda timeline: timeline.bin_s)
    frames = []
    for timeline in timelines:
        values = np.interp(longest.time_s, timeline.time_s, timeline.values[column], right=np.nan)
        frames.append(pd.DataFrame({"time": longest.time_s, "value": values}))
    return pd.concat(frames, ignore_index=True).dropna()


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(low / 1.1, high * 1.1)
    few_decades = high / low < 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _svg(draw: Callable[[Axes], None], alt: Alt, frame: _Frame | None = None) -> Markup:
    import matplotlib
    from matplotlib.figure import Figure

    frame = frame or _Frame()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(frame.width_in, frame.height_in))
        draw(figure.add_axes(frame.inside))
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), alt)


def _inline(svg: str, alt: Alt) -> Markup:
    """matplotlib's file as a part of a page: no prologue, ids of its own, short numbers, the page's colours."""
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    for needless in (r"<metadata>.*?</metadata>", r"<defs>\s*<style.*?</style>\s*</defs>", r"<!--.*?-->"):
        body = re.sub(needless, "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'\bid="', f'id="{alt.key}-', body)
    body = body.replace("url(#", f"url(#{alt.key}-").replace('xlink:href="#', f'href="#{alt.key}-')
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag.group()), body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    body = re.sub(r"\s+", " ", body).replace("> <", "><").strip()
    return Markup(f'<svg role="img" aria-label="{escape(alt.text)}" viewBox="{box.group(1)}">{body}')
