"""What single sections say: the verdict and when it is withheld, reasons for failures, figures and their units."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from results.schema import Status
from tests.reports.pages import Element, report, rows, section
from tests.results.run_folders import Shape

SMALL = Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=2, requests=12, tokens=4, steps=20)
FAILED = {f"e2-w1-r{repeat}": Status.FAILED for repeat in range(3)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Element:
    shape = Shape(bad={"e1-w0-r1": Status.INVALID, "e0-w0-r2": Status.REFUSED, **FAILED}, requests=120)
    return report(tmp_path_factory.mktemp("runs"), shape)


def test_failures_come_with_their_reason(page: Element) -> None:
    listed = rows(section(page, "problems").one("table"))
    assert listed[0][:3] == ["failed", "apex on long_output", "0, 1, 2"]
    assert "OutOfMemory: 9.1 GiB wanted, 8.0 GiB given" in listed[0][3]
    assert "Traceback" in listed[0][3]
    assert [row[0] for row in listed[1:3]] == ["refused", "invalid"]
    assert "workload clipped to 2400 tokens" in listed[2][3]


def test_requests_that_did_not_finish_are_counted(page: Element) -> None:
    listed = rows(section(page, "problems").one("table"))
    refused = "requests refused: longer than the model's context"
    assert ["requests", "gpu_only on chat and neo on chat", "", f"2 of 240 {refused}"] in listed


def test_a_run_without_problems_says_so_in_one_line(tmp_path: Path) -> None:
    page = report(tmp_path, dataclasses.replace(SMALL, requests=8))
    assert "Nothing failed: 4 cells ran to the end" in section(page, "verdict").text
    assert "problems" not in [element.attributes["id"] for element in page.all("section")]


def test_an_engine_that_failed_shows_its_status_and_no_figure(page: Element) -> None:
    chat, long_output = section(page, "results").all("table", class_="figures")
    assert rows(long_output)[2] == ["apex 0 of 3 repeats", "failed OutOfMemory: 9.1 GiB wanted, 8.0 GiB given"]
    assert rows(chat)[1][0] == "neo 2 of 3 repeats"


def test_figures_tell_their_numbers_to_those_who_do_not_see_them(page: Element) -> None:
    drawing = section(page, "latency").all("svg", role="img")[0]
    assert "Time to first token (TTFT) on chat, emulated" in drawing.attributes["aria-label"]
    assert "Medians: gpu_only " in drawing.attributes["aria-label"]
    bars = section(page, "busy").all("svg", role="img")[0]
    assert "gpu_only on chat, emulated: share of serving time busy: GPU " in bars.attributes["aria-label"]


def test_a_sweep_says_which_figures_it_leaves_out(tmp_path: Path) -> None:
    rates = [f"rate {number}" for number in range(14)]
    shape = dataclasses.replace(SMALL, engines=("apex",), workloads=rates, repeats=1, steps=0)
    page = report(tmp_path, shape)
    assert len(section(page, "latency").all("figure")) == 12
    assert "Figures for the first 12 workloads; 2 more are in the tables." in section(page, "latency").text
    assert len(section(page, "results").all("table", class_="figures")) == 14


def test_the_slowest_requests_of_every_cell_are_listed(page: Element) -> None:
    table = section(page, "requests").one("table", class_="sortable")
    listed = rows(table)
    assert len(listed) <= 200
    assert f"{len(listed)} of 1,560 requests: of each cell 15 at most" in section(page, "requests").text
    assert {row[0] for row in listed} == {"gpu_only", "neo", "apex"}
    assert listed[0][-1] == "refused"
    lasted = [float(row[9].replace(",", "")) for row in listed[1:15]]
    assert lasted == sorted(lasted, reverse=True)


def test_a_request_that_never_ran_has_dashes(tmp_path: Path) -> None:
    shape = dataclasses.replace(SMALL, engines=("apex",), repeats=1)
    listed = rows(section(report(tmp_path, shape), "requests").one("table", class_="sortable"))
    assert len(listed) == 12
    assert listed[0][-1] == "refused"
    assert listed[0][8:10] == ["–", "–"]


def test_provenance_says_how_to_run_it_again(page: Element) -> None:
    provenance = section(page, "provenance")
    assert provenance.one("pre", class_="command").text.startswith("harness run --config quickstart.yaml")
    assert "0123456789abcdef0123456789abcdef01234567 with uncommitted changes" in provenance.text
    assert "repeats: 3" in provenance.all("details")[-1].text
    assert "Machine cpu Xeon Platinum 8259CL" in provenance.text


def test_definitions_give_formulas(page: Element) -> None:
    assert ["tpot_s", "(last token − first token) / (output tokens − 1)", "Each request counts once."] in rows(
        section(page, "definitions").one("table")
    )
