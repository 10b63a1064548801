"""The page of the history: figures are those of the store, labels everywhere, nothing runs, whatever the names are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.tracking.loading import load_tracked
from reports.values import ABSENT
from results.history import History
from results.history_rows import Ack, Skipped
from tests.reports.pages import Element, parse, rows, section
from tests.results.run_folders import HOSTILE
from tests.tracking.conftest import RATE, Call, Make, added, day, nights_from

ATTACK = f"\"'>{HOSTILE}</style></title>{{{{ 7*7 }}}}&lt;"
NIGHTS, AFTER = 12, 3
BUSY = "load average 9 on 2 cores"
GAP = 5  # the day that has no night


@pytest.fixture(scope="module")
def filled(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day without a night, a change that is acknowledged, and a night that was not run."""
    folder = tmp_path_factory.mktemp("page")
    night = nights_from(made, folder)
    db = added(folder / "history.sqlite", [night(number) for number in range(NIGHTS) if number != GAP])
    added(db, [night(number, scaled={"gpu_only": 0.88}) for number in range(NIGHTS, NIGHTS + AFTER)])
    with History.opened(db) as history:
        (name,) = {name for name in _names(db) if name.startswith(f"gpu_only/batch/{RATE}@")}
        history.acknowledge(Ack(name, day(NIGHTS), "smaller batches, on purpose", f"{day(NIGHTS)}T09:00:00+00:00"))
        history.skip(Skipped(day(NIGHTS + AFTER), "", BUSY))
    return db


def page_of(db: Path, out: Path) -> Element:
    with pytest.raises(SystemExit) as ended:
        main(["track", "report", "--db", str(db), "--out", str(out), "--night", day(NIGHTS + AFTER)])
    assert ended.value.code in (0, None)
    return parse(out)


@pytest.fixture(scope="module")
def page(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Element:
    return page_of(filled, tmp_path_factory.mktemp("out") / "history.html")


def charts(page: Element) -> list[Element]:
    return section(page, "charts").all("figure")


def test_numbers_are_those_of_the_store(page: Element, filled: Path) -> None:
    with History.opened(filled) as history:
        tracked = {each.name: each for each in load_tracked(history)}
    assert len(charts(page)) == len(tracked) == 6
    for chart in charts(page):
        each = tracked[chart.one("figcaption").one("code").text]
        shown = {row[0]: row for row in rows(chart.one("table"))}
        assert list(shown) == [night.day for night in reversed(each.series.nights)]
        for night in each.series.nights:
            texts = [] if shown[night.day][2] == ABSENT else shown[night.day][2].split()
            assert [float(text) for text in texts] == pytest.approx(night.values, rel=1e-5)
            assert bool(texts) is night.fit


def test_every_figure_is_labelled(page: Element) -> None:
    assert "Simulated: " in page.one("header").text
    assert all("simulated" in chart.one("figcaption").text for chart in charts(page))
    assert all("simulated" in chart.one("caption").text for chart in charts(page))
    assert all(row[2] == "simulated" for row in rows(section(page, "series").one("table")))
    for finding in section(page, "findings").all("li"):
        assert finding.one("span", class_="badge").text == "simulated"


def test_charts_say_what_they_show(page: Element) -> None:
    svgs = [chart.one("svg", role="img") for chart in charts(page)]
    labels = [each.attributes["aria-label"] for each in svgs]
    assert len(set(labels)) == len(labels) == 6
    assert all("simulated" in label and f"from {day(0)} on" in label for label in labels)
    ids = [element.attributes["id"] for element in page.everything() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)


def test_acknowledgements_missing_and_unfit_nights_are_there(page: Element) -> None:
    (chart,) = [each for each in charts(page) if f"gpu_only/batch/{RATE}@" in each.text]
    assert f"acknowledged from {day(NIGHTS)} on: smaller batches, on purpose" in chart.text
    nights = {row[0]: row[1:] for row in rows(section(page, "nights").one("table"))}
    assert list(nights) == [day(number) for number in reversed(range(NIGHTS + AFTER + 1))]
    assert nights[day(GAP)] == ["no night"]
    assert nights[day(NIGHTS + AFTER)] == [f"no night: {BUSY}"]


def test_a_run_on_an_unfit_machine_says_why(night: Make, db: Path, tmp_path: Path) -> None:
    """Also where a series has no other night."""
    busy = {"machine": {"load_warning": BUSY}, "backend": "cpu"}
    page = page_of(added(db, [night(0), night(1, manifest=busy)]), tmp_path / "page.html")
    found = {row[0]: row[-1] for row in rows(section(page, "nights").one("table"))}
    assert {number: BUSY in found[day(number)] for number in range(2)} == {0: False, 1: True}
    assert f"is not judged: {BUSY}" in section(page, "findings").text


def test_nothing_is_fetched_and_nothing_runs(page: Element) -> None:
    for element in page.everything():
        assert element.tag not in {"script", "link", "img", "iframe", "object"}
        assert not any(name.startswith("on") or name == "src" for name in element.attributes)
    assert not re.search(r"https?://|@import", page.text)
    (policy,) = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    style = page.one("style").text
    assert "prefers-color-scheme: dark" in style
    assert any(meta.attributes.get("name") == "viewport" for meta in page.all("meta"))


def test_hostile_names_are_shown_and_never_run(call: Call, night: Make, db: Path, tmp_path: Path) -> None:
    def attack(cell: dict[str, Any]) -> None:
        cell.update(workload=ATTACK, engine=f"{cell['engine']}{ATTACK}")
        if cell["repeat"] == 1:
            cell.update(status="failed", error=ATTACK)

    machine = {"cpu": ATTACK, "load_average": ATTACK, "gpus": [{"name": ATTACK}]}
    told = {"name": ATTACK, "machine": machine, "versions": {"hybrid-harness": ATTACK}, "label": "measured"}
    added(db, [night(number, cells=attack, manifest=told) for number in range(2)])
    (series,) = {each for each in _names(db) if each.startswith(f"gpu_only{ATTACK}/") and RATE in each}
    assert call("track", "ack", series, "--night", day(1), "--reason", ATTACK, "--db", db).code == 0
    page = page_of(db, tmp_path / "page.html")
    assert not page.all("script")
    assert len(page.all("style")) == 1
    assert f"gpu_only{ATTACK} on {ATTACK}" in [link.text for link in section(page, "series").all("a")]
    assert any(ATTACK in each.text for each in section(page, "findings").all("li"))
    assert any(f"on: {ATTACK}" in chart.text for chart in charts(page))
    assert any(ATTACK in row[1] for row in rows(section(page, "nights").one("table")))
    assert page.text.count("alert(1)") > 5


def test_the_same_history_gives_the_same_page(filled: Path, tmp_path: Path) -> None:
    out = tmp_path / "history.html"
    texts = set()
    for _ in range(2):
        page_of(filled, out)
        texts.add(re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", "", out.read_text()))
    assert len(texts) == 1


def test_a_folder_that_is_not_there(call: Call, filled: Path, tmp_path: Path) -> None:
    found = call("track", "report", "--db", filled, "--out", tmp_path / "no" / "page.html")
    assert (found.code, found.errors) == (
        2,
        [f"error: --out {tmp_path / 'no' / 'page.html'}: no such folder to write a file into"],
    )


def _names(db: Path) -> set[str]:
    with History.opened(db) as history:
        return {each.name for each in load_tracked(history)}
