"""The front page of a night: what was found, and where the history, the reports and the figures are.

Sentences are the judgement's, each with its label in it; nothing is judged or computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.answer_page import answer_page

VERDICTS = {
    0: "No regression shown.",
    1: "A regression is confirmed and not acknowledged.",
    3: "No regression shown, but not everything could be judged: the machine was unfit, or figures are missing.",
    4: "No regression shown, but some cells failed.",
    130: "Interrupted: what was done until then is kept.",
}


@dataclass(frozen=True, slots=True)
class Link:
    file: str  # beside this page
    title: str
    meaning: str


def nightly_page(
    night: str, exit_code: int, lines: Sequence[str], links: Sequence[Link], told: Mapping[str, str]
) -> str:
    """`lines`: what was found, the worst first. `told`: command, date and commit, as far as the caller knows them."""
    return answer_page(
        "nightly.html",
        f"Night of {night}",
        "Nightly performance",
        told,
        verdict=VERDICTS[exit_code],
        lines=lines,
        links=links,
    )
