"""The answer, first: the sentences that the comparison came to, or why there are none.

The sentences are written by whoever computed the intervals. This module only withholds them where too few pairs stand
behind them: three to five pairs are where intervals are known to promise more than they hold.
"""

from __future__ import annotations

from reports import labels
from reports.rendering import Section, render
from reports.values import count
from results.query import Run

PAIRS_FOR_A_VERDICT = 5


def build(run: Run) -> Section:
    pairs = run.paired_repeats()
    enough = pairs >= PAIRS_FOR_A_VERDICT
    sentences = run.verdicts if enough else ()
    instead = None if sentences else _instead(run, pairs)
    body = render("verdict.html", label=labels.of(run.cells), verdicts=sentences, instead=instead)
    return Section("verdict", "Verdict", body)


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
