"""From matplotlib to inline SVG that belongs to the page, with the page's colours and the page's font.

matplotlib is imported when the first figure is drawn, and used without pyplot's state, so nothing is left behind. What
is drawn is `charts`' part. Text in a figure is ours only; names of engines stand in the HTML around it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from reports.legible import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A figure is drawn in marker colours that become variables of the style sheet: light, dark and print differ only there.
SERIES = 8
COLOURS = tuple(f"#fe01{slot:02x}" for slot in range(SERIES))
INK, RULE = "#fe0200", "#fe0201"
_VARIABLES = {colour: f"var(--s{slot})" for slot, colour in enumerate(COLOURS)} | {
    INK: "var(--muted)",
    RULE: "var(--rule)",
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
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True, slots=True)
class Alt:
    """What a figure is called in the page (unique) and what it says to those who do not see it."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Frame:
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


def svg(draw: Callable[[Axes], None], alt: Alt, frame: Frame | None = None) -> Markup:
    import matplotlib
    from matplotlib.figure import Figure

    frame = frame or Frame()
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
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag.group()), body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    body = re.sub(r"\s+", " ", body).replace("> <", "><").strip()
    return Markup(f'<svg role="img" aria-label="{escape(printable(alt.text))}" viewBox="{box.group(1)}">{body}')


def line(slot: int) -> dict[str, Any]:
    """How the line of an engine looks, as matplotlib wants it."""
    dashes = DASHES[slot % len(DASHES)]
    return {"color": COLOURS[slot % SERIES], "linestyle": (0, dashes) if dashes else "solid"}
