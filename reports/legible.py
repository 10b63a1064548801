"""Names and texts as a page can bear them: characters that would turn or break the text around them are written out,
and names as long as a page are shortened.

Escaping is `rendering`'s: what is text here stays text there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from results.query import Run

LONGEST_NAME = 80
LONGEST_REASON = 300

# Controls without a glyph, halves of surrogate pairs (no file in UTF-8 can hold them), and what changes the direction
# of all text that follows: an engine's name must not be able to turn a sentence of ours around.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`a\u202eb` as `a⟨U+202E⟩b`."""
    return _UNPRINTABLE.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)


def shortened(text: str, most: int) -> str:
    """Without its middle where it is longer: the end of a name often tells it from its neighbours."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 1]}…{text[-end:]}"


def with_short_names(run: Run) -> Run:
    """The run with names of engines and workloads that fit into a table, in its verdicts too.

    Those that would become alike are numbered. The configuration in the page keeps the whole names.
    """
    engines, workloads = _short(run.engines), _short(run.workloads)
    names = {name: short for name, short in (engines | workloads).items() if name != short}
    title = shortened(run.manifest.name, LONGEST_NAME)
    if not names and title == run.manifest.name:
        return run
    cells = (replace(cell, engine=engines[cell.engine], workload=workloads[cell.workload]) for cell in run.cells)
    return replace(
        run,
        manifest=replace(run.manifest, name=title),
        cells=tuple(cells),
        verdicts=tuple(_renamed(verdict, names) for verdict in run.verdicts),
    )


def _short(names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        short, number = shortened(name, LONGEST_NAME), 1
        while short in found.values():
            number += 1
            short = f"{shortened(name, LONGEST_NAME)} ({number})"
        found[name] = short
    return found


def _renamed(sentence: str, names: dict[str, str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        sentence = sentence.replace(name, names[name])
    return sentence
