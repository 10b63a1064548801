"""The ledger of published claims as a page: what was published, what our engines say, and the verdict in words.

Made from the JSON that the harness gives for each verdict. Nothing is judged here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.answer_page import answer_page
from reports.labels import MEANING
from reports.values import count, figure, listing, span
from results.schema import Label

JSON = Mapping[str, Any]
SHOWN = 4  # points; more are folded

# Each verdict: the class of its colour, and what it claims.
WORDS = {
    "reproduced": ("reproduced", "measured on that hardware, and the published value was met."),
    "not reproduced": ("not-reproduced", "measured on that hardware, and the published value was not met."),
    "consistent with our model": (
        "consistent",
        "simulated; the published value lies within the band that the machine's uncertain constants leave.",
    ),
    "not consistent with our model": (
        "inconsistent",
        "simulated; no machine within those constants' ranges gives the published value. A finding about the claim, "
        "the model or our engine: which of them is not shown.",
    ),
    "not testable here": ("untestable", "nothing was run, for the reason given."),
}
RULES = (
    "A range is met when the band reaches it on every point that can be formed, a bound likewise; an “up to” when the "
    "band of the best point reaches it. What print rounds away is tolerated. Of what was measured the band is the 95 % "
    "interval over repeats."
)


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    says: str
    version: str
    source: str
    where: tuple[str, ...]  # machine, model, workload
    published: str
    tolerance: str
    asked: str  # what was formed, and of which metric
    points: tuple[str, ...]
    more: tuple[str, ...]
    label: str
    word: str
    style: str
    why: str


def claims_page(verdicts: Sequence[Mapping[str, object]], told: Mapping[str, str]) -> str:
    """`told`: command, date and commit, as far as the caller knows them."""
    rows: dict[str, list[Row]] = {}
    for verdict in verdicts:
        rows.setdefault(_text(verdict["claim"], "who"), []).append(_row(verdict))
    labels = sorted({str(verdict["label"]) for verdict in verdicts if verdict["label"]})
    tally = Counter(str(verdict["verdict"]) for verdict in verdicts)
    return answer_page(
        "claims.html",
        "Published claims, and what we find",
        "Claims ledger",
        told,
        labels=[(label, MEANING[Label(label)]) for label in labels],
        tally=[(word, style, tally[word]) for word, (style, _) in WORDS.items()],
        summary=_summary(tally, len(verdicts), len(rows)),
        words=[(word, style, meaning) for word, (style, meaning) in WORDS.items()],
        rules=RULES,
        papers=[(f"paper-{number}", who, found) for number, (who, found) in enumerate(rows.items())],
    )


def _summary(tally: Mapping[str, int], verdicts: int, papers: int) -> str:
    found = listing(f"{tally[word]} {word}" for word in WORDS if tally.get(word))
    claims = f"{count(verdicts, 'claim')} from {count(papers, 'source')}"
    return f"{claims}: {found}." if found else "The ledger has no claim."


def _row(verdict: JSON) -> Row:
    claim, points = verdict["claim"], [_point(point) for point in verdict["points"]]
    word = str(verdict["verdict"])
    return Row(
        name=claim["id"],
        says=claim["says"],
        version=claim["version"],
        source=claim["source"],
        where=(claim["machine"], claim["model"], claim["workload"]),
        published=_published(claim["expect"]),
        tolerance=f"± {claim.get('tolerance', 0) * 100:g} %",
        asked=_asked(claim.get("test")),
        points=tuple(points[:SHOWN]),
        more=tuple(points[SHOWN:]),
        label=verdict["label"],
        word=word,
        style=WORDS[word][0],
        why=verdict["why"],
    )


def _point(point: JSON) -> str:
    band = span(figure(point["low"]), figure(point["high"]))
    return f"{figure(point['value'])} ({band}) on {point['workload']}"


def _published(expect: JSON) -> str:
    if expect.get("range"):
        low, high = expect["range"]
        return span(figure(low), figure(high))
    words = {"up_to": "up to", "at_least": "at least", "at_most": "at most"}
    return listing(f"{word} {figure(expect[key])}" for key, word in words.items() if expect.get(key) is not None)


def _asked(test: JSON | None) -> str:
    """Nothing where there is no test."""
    if not test:
        return ""
    if ratio := test.get("ratio"):
        theirs = ratio["theirs"]
        rival = theirs[0] if len(theirs) == 1 else f"the best of {listing(theirs)}"
        return f"{test['metric']}: {ratio['ours']} over {rival}"
    if trend := test.get("trend"):
        return f"{test['metric']} of {trend['engine']}: {trend['of']} over {trend['over']}"
    if test.get("figure"):
        return f"{test['metric']} of {test['figure']}"
    return f"the weights of {test['weights']}, in GiB" if test.get("weights") else ""


def _text(data: object, key: str) -> str:
    assert isinstance(data, Mapping)
    return str(data[key])
