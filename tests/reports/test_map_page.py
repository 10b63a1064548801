"""The page of a crossover map: labels, hatches and numbers are there, in one file, whatever the names are."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from reports.map_page import map_page
from tests.reports.pages import Element, fragment, rows, section
from tests.results.run_folders import HOSTILE

TOLD = {"command": "harness map --hardware a_box", "date": "2026-02-03T04:05:06+00:00", "commit": "0123abcd"}
ATTACK = f"\"'>{HOSTILE}</style></title>{{{{ 7*7 }}}}&lt;"


def span(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def place(output: int, kv: int, apex: float, **other: Any) -> dict[str, Any]:
    standings = [
        {"engine": "gpu_only", "tokens_per_s": span(100, 90, 120), "gain": span(1, 1, 1), "problem": ""},
        {"engine": "apex", "tokens_per_s": span(100 * apex, 85, 333), "gain": span(apex, 0.95, 2.5), "problem": ""},
        {"engine": "odd", "tokens_per_s": None, "gain": None, "problem": "too large by 3.5 GiB"},
    ]
    winner = {"winner": "apex", "gain": span(apex, 0.95, 2.5), "rivals": [], "decided": True}
    where = {"output_tokens": output, "kv_tokens": kv, "cpu_factor": 0.5, "cpu_bandwidth_bytes_per_s": 35e9}
    return {**where, "requests_cut": 0, "beyond_memory": False, **winner, "standings": standings, **other}


def found() -> dict[str, Any]:
    """One panel of two by two: decided, not decided, without gain, without figures."""
    cells = [
        place(50, 1200, 2.25),
        place(100, 1200, 1.33, rivals=["gpu_only", "neo"], decided=False, requests_cut=5),
        place(50, 4800, 1.0, winner="gpu_only", gain=span(1, 1, 1), beyond_memory=True),
        place(100, 4800, 1.0, winner="", gain=None, decided=False, beyond_memory=True),
    ]
    bandwidth = {"path": "cpu.read_bandwidth_bytes_per_s", "value": 70e9, "low": 47e9, "high": 100e9}
    return {
        "label": "simulated",
        "metric": "output_tokens_per_s_whole_run",
        "baseline": "gpu_only",
        "draws": 4,
        "holds_kv_tokens": 3707,
        "hardware": "a_box",
        "model": "a_model",
        "dtype": "float16",
        "prompt_tokens": 1000,
        "output_tokens": [50, 100],
        "kv_tokens": [1200, 4800],
        "cpu_factors": [0.5],
        "engines": ["gpu_only", "apex", "odd"],
        "requests": 24,
        "constants": [{**bandwidth, "grade": "assumed", "source": "half of the socket"}],
        "cells": cells,
    }


@pytest.fixture(scope="module")
def page() -> Element:
    return fragment(map_page(found(), TOLD))


def spots(page: Element) -> list[Element]:
    return section(page, "maps").all("td", class_="spot")


def test_every_figure_is_labelled(page: Element) -> None:
    assert "Simulated: " in page.one("header").text
    assert page.all("figure")
    for figure in page.all("figure"):
        assert "simulated" in figure.one("figcaption").text
    heads = section(page, "numbers").one("thead").all("th")
    assert [head.text for head in heads if "simulated" in head.text] == [
        "Tokens/s simulated",
        "Band simulated",
        "Over gpu_only simulated",
        "Band simulated",
    ]
    assert "simulated" in section(page, "numbers").one("caption").text
    assert "simulated" in section(page, "verdict").text


def test_who_wins_is_told_and_counted(page: Element) -> None:
    assert [spot.text for spot in spots(page)] == [
        "apex 2.25×",
        "apex 1.33× or gpu_only or neo 5 of 24 cut",
        "gpu_only 1.00×",
        "no figure",
    ]
    text = section(page, "verdict").text
    assert "Fastest: apex in 2 and gpu_only in 1 of 4 places; not decided: 1." in text
    assert "1 place gave no figure." in text


def test_what_is_not_decided_is_hatched_and_nothing_else(page: Element) -> None:
    assert ["undecided" in spot.attributes["class"] for spot in spots(page)] == [False, True, False, False]
    style = page.one("style").text
    assert re.search(r"\.undecided \{\s*background-image: repeating-linear-gradient", style)
    assert "not decided" in section(page, "maps").one("ul", class_="legend").text


def test_colour_grows_with_the_gain(page: Element) -> None:
    shares = [float(spot.attributes["style"].removeprefix("--share: ").rstrip("%")) for spot in spots(page)[:3]]
    assert shares[0] > shares[1] > shares[2] == 0


def test_a_map_without_any_gain_has_no_colour() -> None:
    none = found()
    none["cells"] = [place(output, kv, 1.0, winner="gpu_only") for kv in (1200, 4800) for output in (50, 100)]
    for cell in none["cells"]:
        cell["gain"] = span(1, 1, 1)
    assert {spot.attributes["style"] for spot in spots(fragment(map_page(none, TOLD)))} == {"--share: 0%"}


def test_budgets_beyond_the_card_are_marked(page: Element) -> None:
    heads = [row.one("th").text for row in section(page, "maps").one("tbody").all("tr")]
    assert heads == ["1,200", "4,800 more than the card holds"]
    assert "3,707 KV tokens fit" in section(page, "numbers").text


def test_all_numbers_are_in_the_table(page: Element) -> None:
    listed = rows(section(page, "numbers").one("table"))
    assert len(listed) == 12
    assert listed[0] == ["gpu_only", "35.0", "1,200", "50", "100", "90–120", "1.00×", "1.00", ""]
    assert listed[1] == ["apex", "35.0", "1,200", "50", "225", "85–333", "2.25×", "0.95–2.50", "wins"]
    assert listed[2] == ["odd", "35.0", "1,200", "50", "–", "–", "–", "–", "too large by 3.5 GiB"]
    assert listed[3][-1] == "may win"
    assert listed[4][-1] == "wins, not decided"


def test_the_reason_for_no_figure_is_at_hand(page: Element) -> None:
    assert spots(page)[3].attributes["title"] == "too large by 3.5 GiB"


def test_constants_and_provenance(page: Element) -> None:
    (constant,) = rows(section(page, "constants").one("table"))
    path = "cpu.read_bandwidth_bytes_per_s"
    assert constant == [path, "70 GB/s", "47 GB/s – 100 GB/s", "assumed", "half of the socket"]
    provenance = section(page, "provenance")
    assert provenance.one("pre", class_="command").text == TOLD["command"]
    assert "2026-02-03 04:05:06 UTC" in provenance.text
    assert "0123abcd" in provenance.text


def test_a_machine_without_ranges_says_that_nothing_was_drawn() -> None:
    page = fragment(map_page(found() | {"constants": []}, {}))
    assert "no constant with a range" in section(page, "constants").text
    assert "No command was recorded" in section(page, "provenance").text


def test_nothing_is_fetched_and_nothing_runs(page: Element) -> None:
    for element in page.everything():
        assert element.tag not in {"script", "link", "img", "iframe", "object"}
        assert not any(name.startswith("on") or name == "src" for name in element.attributes)
    assert not re.search(r"https?://|@import|url\(", page.text)
    (policy,) = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_hostile_text_is_shown_and_never_run() -> None:
    bad = copy.deepcopy(found()) | {"model": ATTACK, "hardware": ATTACK, "engines": [ATTACK]}
    bad["constants"][0] |= {"source": ATTACK, "path": ATTACK}
    bad["cells"][0]["winner"] = ATTACK
    bad["cells"][1]["rivals"] = [ATTACK]
    bad["cells"][3]["standings"][2]["problem"] = ATTACK
    page = fragment(map_page(bad, {"command": ATTACK, "commit": ATTACK, "date": ATTACK}))
    assert not page.all("script")
    assert len(page.all("style")) == 1
    assert page.one("h1").text.startswith(ATTACK)
    assert spots(page)[0].one("b").text == ATTACK
    assert ATTACK in spots(page)[3].attributes["title"]
    assert section(page, "provenance").one("pre", class_="command").text == ATTACK


def test_the_same_data_gives_the_same_page() -> None:
    assert map_page(found(), TOLD) == map_page(found(), TOLD)
