"""The overlap timeline as SVG: one lane per unit of the machine, a block per op, a line where a step begins.

The drawing is stretched to the width it gets, so it holds no text: names of lanes and times stand in the HTML beside
it. Ops narrower than a reader can see are drawn together with their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from markupsafe import Markup, escape

from reports.legible import printable
from reports.traces import Excerpt, Op
from reports.values import seconds

WIDTH = 1000.0
LANE_HEIGHT = 22
LANE_GAP = 6
NARROW = WIDTH / 400
MOST_TICKS = 6
ROOM_FOR_A_WORD = 12.0  # percent of a phone's width


class Sort(Enum):
    """What an op does, as the colours tell it; the first word of its name says which."""

    LINEAR = "linear layers"
    ATTENTION = "attention"
    HOST_ATTENTION = "attention on the host"
    MOVE = "over the link"
    OTHER = "other"


_SORTS = {
    "first": Sort.LINEAR,
    "between": Sort.LINEAR,
    "last": Sort.LINEAR,
    "attention": Sort.ATTENTION,
    "host_attention": Sort.HOST_ATTENTION,
    "move": Sort.MOVE,
    "prompt_to_host": Sort.MOVE,
    "prompt_to_accel": Sort.MOVE,
    "rows_to_host": Sort.MOVE,
    "rows_to_accel": Sort.MOVE,
}
SLOTS = {sort: slot for slot, sort in enumerate(Sort)}


@dataclass(frozen=True, slots=True)
class Block:
    """One op, or a run of ops too narrow to be told apart."""

    ops: tuple[Op, ...]
    left: float
    right: float

    @property
    def sort(self) -> Sort:
        return sort_of(max(self.ops, key=lambda op: op.end_s - op.start_s))

    @property
    def narrow(self) -> bool:
        return self.right - self.left < NARROW

    @property
    def title(self) -> str:
        first, last = self.ops[0], self.ops[-1]
        if len(self.ops) == 1:
            return f"{first.name}, step {first.step}: {seconds(first.end_s - first.start_s)}"
        return f"{len(self.ops)} ops, {first.name} to {last.name}: {seconds(last.end_s - first.start_s)}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A word at a place along the width, in percent."""

    place: float
    text: str


def sort_of(op: Op) -> Sort:
    return _SORTS.get(op.name.split(" ", 1)[0], Sort.OTHER)


def draw(excerpt: Excerpt, alt: str) -> Markup:
    """The lanes from top to bottom in the order of `excerpt.lanes`."""
    height = len(excerpt.lanes) * (LANE_HEIGHT + LANE_GAP) - LANE_GAP
    blocks = Markup("").join(
        _rectangle(block, row * (LANE_HEIGHT + LANE_GAP))
        for row, track in enumerate(excerpt.lanes)
        for block in _blocks(excerpt, [op for op in excerpt.ops if op.track == track])
    )
    starts = Markup("").join(
        Markup(f'<line x1="{mark.place * WIDTH / 100:.1f}" y1="0" x2="{mark.place * WIDTH / 100:.1f}" y2="{height}"/>')
        for mark in step_marks(excerpt)
    )
    return Markup(
        f'<svg role="img" aria-label="{escape(printable(alt))}" viewBox="0 0 {WIDTH:g} {height}" height="{height}" '
        f'preserveAspectRatio="none">{starts}{blocks}</svg>'
    )


def step_marks(excerpt: Excerpt) -> list[Mark]:
    """Where steps begin; one that begins too near the word before has no word."""
    marks: list[Mark] = []
    free_from = 0.0
    for step in excerpt.steps:
        place = _place(excerpt, excerpt.step_start_s(step)) / WIDTH * 100
        marks.append(Mark(place, str(step) if place >= free_from else ""))
        free_from = place + ROOM_FOR_A_WORD if place >= free_from else free_from
    return marks


def time_marks(excerpt: Excerpt) -> list[Mark]:
    """Round times from the start of the excerpt, no more than fit under a phone's width."""
    length = excerpt.end_s - excerpt.start_s
    if length <= 0:
        return [Mark(0.0, "0 s")]
    step = _round_up(length / MOST_TICKS)
    times = [number * step for number in range(int(length / step * (1 + 1e-9)) + 1)]
    return [Mark(100 * time / length, seconds(time) if time else "0") for time in times if time <= 0.86 * length]


def _round_up(length: float) -> float:
    """The next of 1, 2, 5, 10, ..."""
    power = 1e-9
    while True:
        for factor in (1, 2, 5):
            if power * factor >= length * (1 - 1e-9):
                return power * factor
        power *= 10


def _place(excerpt: Excerpt, time_s: float) -> float:
    length = excerpt.end_s - excerpt.start_s
    return WIDTH * (time_s - excerpt.start_s) / length if length > 0 else 0.0


def _blocks(excerpt: Excerpt, ops: Sequence[Op]) -> Iterator[Block]:
    """A narrow op joins the narrow block before it when no visible gap lies between them."""
    waiting: Block | None = None
    for op in ops:
        block = Block((op,), _place(excerpt, op.start_s), _place(excerpt, op.end_s))
        if waiting and waiting.narrow and block.narrow and block.left - waiting.right < NARROW / 2:
            waiting = Block((*waiting.ops, op), waiting.left, block.right)
            continue
        if waiting:
            yield waiting
        waiting = block
    if waiting:
        yield waiting


def _rectangle(block: Block, top: int) -> Markup:
    width = max(block.right - block.left, 0.4)  # nothing that ran is invisible
    width -= 1.0 if width > 4 * NARROW else 0.0  # neighbours of one colour stay apart
    return Markup(
        f'<rect class="op{SLOTS[block.sort]}" x="{block.left:.1f}" y="{top}" width="{width:.1f}" '
        f'height="{LANE_HEIGHT}"><title>{escape(printable(block.title))}</title></rect>'
    )
