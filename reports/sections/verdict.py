"""The answer, first: the sentences that the comparison came to, or why there are none.

The sentences are written by whoever computed the intervals, and are those of the terminal. With few pairs they give
figures and, of simulated cells, bands over drawn machines, and no verdict: three to five pairs are where intervals are
known to promise more than they hold. This module only withholds what rests on more pairs than there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reports import labels
from reports.judgement import unfair
from reports.rendering import Section, render
from reports.values import count, listing
from results.query import Run
from results.schema import Label

PAIRS_FOR_A_VERDICT = 5
MOST_LARGE = 3

# How many pairs a sentence says that it rests on.
_PAIRS = re.compile(r"(?P<pairs>\d+) pairs?\)")
# What a sentence ends in: its label, which the page shows as a badge, and perhaps a remark.
_LABELLED = re.compile(rf"(?P<text>.+) \[(?P<label>{'|'.join(Label)})(?:, (?P<remark>[^\]]+))?\]")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the verdict with the label of the figures behind it."""

    text: str
    label: str


def build(run: Run, *, all_clear: bool) -> Section:
    pairs = run.paired_repeats()
    sentences = [_sentence(run, text) for text in run.verdicts if _pairs_of(text) <= pairs]
    body = render(
        "verdict.html",
        sentences=sentences,
        large=len(sentences) <= MOST_LARGE,
        instead=None if sentences and pairs >= PAIRS_FOR_A_VERDICT else _instead(run, pairs),
        unfair=listing(engine for engine in run.engines if _is_unfair(run, engine)),
        all_clear=count(len(run.cells), "cell") if all_clear and run.cells else None,
    )
    return Section("verdict", "Verdict", body)


def _pairs_of(text: str) -> int:
    """0 for a sentence that compares nothing."""
    found = _PAIRS.search(text)
    return int(found["pairs"]) if found else 0


def _sentence(run: Run, text: str) -> Sentence:
    found = _LABELLED.fullmatch(text)
    if not found:
        return Sentence(text, labels.of(run.cells))
    remark = f" ({found['remark']})" if found["remark"] else ""
    return Sentence(found["text"] + remark, found["label"])


def _is_unfair(run: Run, engine: str) -> bool:
    return bool(unfair(cell for cell in run.cells if cell.engine == engine))


def _instead(run: Run, pairs: int) -> str:
    if not any(group.ok for group in run.groups()):
        return "No cell has succeeded: there is nothing to compare."
    if len(run.engines) < 2:
        return "One engine: its figures are shown, and there is nothing to compare them with."
    if pairs < PAIRS_FOR_A_VERDICT:
        return (
            f"{count(pairs, 'repeat')}: figures are shown, a verdict needs at least {PAIRS_FOR_A_VERDICT} pairs "
            "(repeats that both engines completed on the same workload)."
        )
    return f"{count(pairs, 'pair')} of repeats, but no verdict was recorded with this run."
