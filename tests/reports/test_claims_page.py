"""The page of the claims ledger: each verdict with its numbers, its word and its reason."""

from __future__ import annotations

from typing import Any

import pytest

from harness.claim_points import Found, Point
from harness.claim_verdicts import Word, verdict
from harness.claims import load_claims
from reports.claims_page import WORDS, claims_page
from tests.reports.pages import Element, fragment, rows, section
from tests.results.run_folders import HOSTILE

TOLD = {"command": "harness claims --out claims.html", "date": "2026-02-03T04:05:06+00:00", "commit": "0123abcd"}
ATTACK = f"\"'>{HOSTILE}</style></title>{{{{ 7*7 }}}}&lt;"
RATIO = {"config": "t4_llama2", "metric": "output_tokens_per_s", "ratio": {"ours": "apex", "theirs": ["neo", "odd"]}}


def point(workload: str, value: float) -> dict[str, Any]:
    return {"workload": workload, "value": value, "low": value - 0.25, "high": value + 0.5}


def one(name: str, who: str, word: str, **other: Any) -> dict[str, Any]:
    claim = {
        "id": name,
        "who": who,
        "version": "v4",
        "source": "abstract",
        "machine": "a T4",
        "model": "a model",
        "workload": "long outputs",
        "says": f"{name} is said",
        "expect": {"range": [1.84, 1.96]},
        "tolerance": 0.05,
        **other.pop("claim", {}),
    }
    given = {"claim": claim, "verdict": word, "label": "", "points": [], "why": f"because of {name}"}
    return {**given, **other}


def verdicts() -> list[dict[str, Any]]:
    return [
        one("a", "APEX", "reproduced", label="measured", points=[point("w", 1.75)], claim={"test": RATIO}),
        one("b", "APEX", "not reproduced", label="measured", points=[point("w", 1.25)]),
        one(
            "c",
            "NEO",
            "consistent with our model",
            label="simulated",
            points=[point(f"w{number}", 1.25 + number) for number in range(6)],
            claim={"expect": {"up_to": 7.5}},
        ),
        one("d", "NEO", "not consistent with our model", label="simulated", claim={"expect": {"at_least": 2.0}}),
        one("e", "a survey", "not testable here", claim={"expect": {"range": [5, 5]}}),
    ]


@pytest.fixture(scope="module")
def page() -> Element:
    return fragment(claims_page(verdicts(), TOLD))


def test_a_table_for_each_paper_in_the_order_of_the_ledger(page: Element) -> None:
    assert [title.text for title in page.all("h2")] == [
        "Summary",
        "APEX",
        "NEO",
        "a survey",
        "What the words mean",
        "Provenance",
    ]
    assert [len(rows(table)) for table in page.all("table")] == [2, 2, 1]


def test_a_row_says_what_was_claimed_and_what_we_find(page: Element) -> None:
    claim, where, published, ours, word = rows(page.all("table")[0])[0]
    assert claim == "a is said v4, abstract a"
    assert where == "a T4 a model long outputs"
    assert published == "1.84–1.96 ± 5 %"
    assert ours == "measured 1.75 (1.50–2.25) on w output_tokens_per_s: apex over the best of neo and odd"
    assert word == "reproduced because of a"


def test_what_was_published_is_told_in_its_form(page: Element) -> None:
    shown = [row[2] for table in page.all("table") for row in rows(table)]
    assert [text.removesuffix(" ± 5 %") for text in shown] == [
        "1.84–1.96",
        "1.84–1.96",
        "up to 7.50",
        "at least 2",
        "5",
    ]


def test_many_points_are_folded_and_all_there(page: Element) -> None:
    cell = page.all("table")[1].one("tbody").all("tr")[0].all("td")[2]
    assert cell.one("summary").text == "2 more"
    assert [line.text.split()[-1] for line in cell.all("li")] == [f"w{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ({"metric": "m", "ratio": {"ours": "apex", "theirs": ["neo"]}}, "m: apex over neo"),
        ({"metric": "m", "trend": {"engine": "apex", "of": "long", "over": "short"}}, "m of apex: long over short"),
        ({"metric": "m", "figure": "apex"}, "m of apex"),
        ({"metric": "m", "weights": "opt-175b"}, "the weights of opt-175b, in GiB"),
        ({"metric": "m", "another_day": 1}, ""),
    ],
)
def test_what_was_formed_is_told(test: dict[str, Any], told: str) -> None:
    given = one("a", "APEX", "reproduced", label="measured", points=[point("w", 1.75)], claim={"test": test})
    ((_, _, _, ours, _),) = rows(fragment(claims_page([given], TOLD)).one("table"))
    assert ours == f"measured 1.75 (1.50–2.25) on w {told}".strip()


def test_where_nothing_was_run_there_is_no_figure_and_no_label(page: Element) -> None:
    (row,) = rows(page.all("table")[2])
    assert row[3] == "–"
    assert not page.all("table")[2].all("span", class_="badge")


def test_every_word_has_its_colour_and_its_count(page: Element) -> None:
    tally = section(page, "summary").one("ul", class_="tally")
    assert [line.text for line in tally.all("li")] == [f"1 {word}" for word in WORDS]
    style = page.one("style").text
    classes = [line.one("span").attributes["class"].split()[-1] for line in tally.all("li")]
    assert len(set(classes)) == len(WORDS) == 5
    assert all(f".word.{name} {{ color:" in style for name in classes)
    meanings = section(page, "words").text
    assert all(word in meanings and meaning in meanings for word, (_, meaning) in WORDS.items())
    assert "5 claims from 3 sources: 1 reproduced, 1 not reproduced, " in section(page, "summary").text


def test_labels_are_explained(page: Element) -> None:
    assert "Measured: " in page.one("header").text
    assert "Simulated: " in page.one("header").text
    assert "Emulated: " not in page.one("header").text


def test_the_words_are_those_of_the_verdicts() -> None:
    assert list(WORDS) == [word.value for word in Word]


def test_the_shipped_ledger_has_a_page() -> None:
    found = Found((Point("long_output-100", 1.5, 1.25, 1.75),))
    given = [verdict(claim, None if claim.test is None else found).to_json() for claim in load_claims()]
    page = fragment(claims_page(given, {}))
    assert sum(len(rows(table)) for table in page.all("table")) == len(given)
    assert "No command was recorded" in section(page, "provenance").text


def test_an_empty_ledger_has_a_page() -> None:
    assert "The ledger has no claim." in section(fragment(claims_page([], TOLD)), "summary").text


def test_provenance(page: Element) -> None:
    provenance = section(page, "provenance")
    assert provenance.one("pre", class_="command").text == TOLD["command"]
    assert "2026-02-03 04:05:06 UTC" in provenance.text
    assert "0123abcd" in provenance.text


def test_hostile_text_is_shown_and_never_run() -> None:
    bad = one("x", ATTACK, "reproduced", label="measured", points=[point(ATTACK, 1.5)], why=ATTACK)
    bad["claim"] |= dict.fromkeys(("version", "machine", "model", "workload", "says"), ATTACK)
    page = fragment(claims_page([bad], {"command": ATTACK, "date": ATTACK, "commit": ATTACK}))
    assert not page.all("script")
    assert len(page.all("style")) == 1
    (row,) = rows(page.one("table"))
    assert all(ATTACK in row[column] for column in (0, 1, 3, 4))
    assert page.all("h2")[1].text == ATTACK
