"""The page as a whole: one file, no network, no foreign script, whole in every state of a run."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reports.page import write_report
from results.errors import ResultsError
from results.parity_check import ParityCheck
from results.schema import Label, Status
from results.store import RunFolder
from tests.reports.pages import Element, parse, report, section
from tests.reports.traces import write_trace
from tests.results.run_folders import HOSTILE, WHEN, Shape, build, manifest, summary

SECTIONS = [
    "verdict",
    "problems",
    "results",
    "fairness",
    "latency",
    "occupancy",
    "busy",
    "timeline",
    "prediction",
    "requests",
    "definitions",
    "provenance",
]
SMALL = Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=2, requests=12, tokens=4, steps=20)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Element:
    bad = {"e1-w0-r1": Status.INVALID, **{f"e2-w1-r{repeat}": Status.FAILED for repeat in range(3)}}
    return report(tmp_path_factory.mktemp("runs"), Shape(bad=bad))


def test_every_section_is_there_and_linked(page: Element) -> None:
    assert [element.attributes["id"] for element in page.all("section")] == SECTIONS
    assert [link.attributes["href"] for link in page.one("nav").all("a")] == [f"#{anchor}" for anchor in SECTIONS]


def test_nothing_is_fetched(page: Element) -> None:
    for element in page.everything():
        assert "src" not in element.attributes
        assert element.tag not in {"link", "iframe", "img", "image", "object", "embed", "base"}
        assert element.attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in element.attributes)
    text = str([(element.attributes, element.children) for element in page.everything()])
    assert not re.search(r"https?://|@import|url\((?!#)", text)


def test_only_our_script_may_run(page: Element) -> None:
    script = page.one("script")
    assert isinstance(script.children[0], str)
    digest = base64.b64encode(hashlib.sha256(script.children[0].encode()).digest()).decode()
    policy = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    assert policy == [f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]


def test_ids_are_unique_and_references_resolve(page: Element) -> None:
    ids = [element.attributes["id"] for element in page.everything() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.everything():
        for value in element.attributes.values():
            for target in re.findall(r"url\(#([^)]*)\)", value):
                assert target in ids
        if element.tag == "use":
            assert element.attributes["href"].removeprefix("#") in ids


def test_wide_tables_scroll_in_their_own_box(page: Element) -> None:
    inside = [table for box in page.all("div", class_="scroll") for table in box.all("table")]
    assert len(inside) == len(page.all("table")) > 5


@pytest.mark.parametrize("label", list(Label))
def test_the_label_is_explained_and_stands_on_every_figure(tmp_path: Path, label: Label) -> None:
    page = report(tmp_path, dataclasses.replace(SMALL, label=label))
    assert f"{label} {label.capitalize()}: " in page.one("header").text
    assert page.all("figure")
    for figure in page.all("figure"):
        assert label in figure.one("figcaption").text
        for drawing in figure.all("svg", role="img"):
            assert label in drawing.attributes["aria-label"]
    for table in page.all("table", class_="figures"):
        heads = [head for head in table.one("thead").all("th") if head.text != "Engine"]
        assert all(label in head.text for head in heads)
    for table in (*section(page, "requests").all("table"), *section(page, "fairness").all("table")):
        assert label in table.one("caption").text
    assert all(label in caption.text for caption in section(page, "results").all("caption"))


def test_mixed_labels_are_warned_of(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL)
    folder = RunFolder.open(path)
    other = dataclasses.replace(folder.read_cell_summary("e1-w0-r0"), label=Label.SIMULATED)
    folder.write_cell_summary(other)
    page = parse(write_report(path))
    assert "This run mixes labels." in page.one("header").text
    assert "emulated + simulated" in section(page, "results").text


def test_hostile_text_is_shown_and_never_run(tmp_path: Path) -> None:
    attack = f"\"'>{HOSTILE}</style></svg></title>{{{{ 7*7 }}}}&lt; $\\frac{{1}}$ 引擎"
    shape = Shape(
        engines=(attack, "apex"),
        workloads=(attack,),
        repeats=2,
        requests=12,
        tokens=3,
        steps=9,
        name=attack,
        bad={"e0-w0-r1": Status.FAILED},
    )
    path = build(tmp_path, shape)
    folder = RunFolder.open(path)
    folder.write_manifest(
        dataclasses.replace(
            manifest(shape),
            command=attack,
            config={"model": attack, attack: {attack: [attack]}},
            machine={attack: attack},
            seeds=attack,
            git_commit=attack,
        )
    )
    bad = summary(shape, "e0-w0-r1", attack, attack, 1, Status.FAILED)
    folder.write_cell_summary(
        dataclasses.replace(
            bad, error=f"{attack}\n{attack}", notes=(attack,), resolved={attack: attack}, unfair=(attack,)
        )
    )
    good = folder.read_cell_summary("e1-w0-r0")
    metrics = {**good.metrics, attack: 1.0}
    parity = ParityCheck(note=attack)
    drawn = {"workload": {"requests": 12, "requests_per_s": attack}, "clipped": attack}
    folder.write_cell_summary(
        dataclasses.replace(good, metrics=metrics, unavailable={attack: attack}, parity=parity, resolved=drawn)
    )
    write_trace(path / "cells" / "e1-w0-r0", [("GPU", attack, 1, 0.0, 1.0)])
    page = parse(write_report(path))
    assert len(page.all("script")) == 1
    assert len(page.all("style")) == 1
    assert page.one("h1").text == attack
    assert page.one("head").one("title").text.startswith(attack)
    assert section(page, "provenance").one("pre", class_="command").text == attack
    assert attack in section(page, "problems").text
    assert attack in section(page, "fairness").text
    assert attack in section(page, "timeline").text
    assert "49" not in page.one("h1").text


def test_rebuilding_gives_the_same_bytes(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL)
    first = write_report(path).read_bytes()
    assert write_report(path).read_bytes() == first


def test_a_crash_keeps_the_report_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(source: object, target: object) -> None:
        raise OSError("the machine stopped here")

    path = build(tmp_path, SMALL)
    (path / "report.html").write_text("the old one")
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(ResultsError, match="stopped here"):
        write_report(path)
    assert (path / "report.html").read_text() == "the old one"


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "begun", WHEN)
    folder.write_manifest(manifest(Shape()))
    page = parse(write_report(folder.path))
    assert "nothing to compare" in section(page, "verdict").text
    assert "18 cells planned, not run yet" in section(page, "problems").text.replace("missing ", "")


def test_a_bare_manifest_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "name": "bare", "label": "measured"}')
    page = parse(write_report(tmp_path))
    assert "No command was recorded" in section(page, "provenance").text


def test_a_run_copied_without_its_tables_keeps_its_figures(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL)
    shutil.rmtree(path / "cells")
    page = parse(write_report(path))
    assert section(page, "results").all("table", class_="figures")
    assert "No latencies were recorded." in section(page, "latency").text
    assert "no such file" in section(page, "problems").text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="not a run folder"):
        write_report(tmp_path)


def test_figures_are_imported_only_when_drawn() -> None:
    check = "import sys, reports.page; sys.exit('matplotlib' in sys.modules or 'seaborn' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[2])
