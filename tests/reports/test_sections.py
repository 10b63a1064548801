"""What single sections say: the verdict and when it is withheld, reasons for failures, figures and their units."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from reports.page import write_report
from results.schema import Status
from results.store import RunFolder
from tests.reports.pages import Element, parse, report, section
from tests.results.run_folders import Shape, build

VERDICT = "apex is 31 % faster than gpu_only (95 % interval 27-35 %, 5 pairs)."
SMALL = Shape(engines=("gpu_only", "apex"), workloads=("chat",), repeats=2, requests=12, tokens=4, steps=20)
FAILED = {f"e2-w1-r{repeat}": Status.FAILED for repeat in range(3)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Element:
    shape = Shape(bad={"e1-w0-r1": Status.INVALID, "e0-w0-r2": Status.REFUSED, **FAILED}, requests=120)
    return report(tmp_path_factory.mktemp("runs"), shape)


def rows(table: Element) -> list[list[str]]:
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in table.one("tbody").all("tr")]


def test_a_verdict_is_shown_with_five_pairs(tmp_path: Path) -> None:
    verdict = section(report(tmp_path, dataclasses.replace(SMALL, repeats=5, verdicts=[VERDICT])), "verdict")
    assert verdict.text == f"Verdict {VERDICT} emulated"


def test_a_verdict_is_withheld_with_fewer(tmp_path: Path) -> None:
    verdict = section(report(tmp_path, dataclasses.replace(SMALL, repeats=3, verdicts=[VERDICT])), "verdict")
    assert "3 repeats: figures are shown, a verdict needs at least 5 pairs" in verdict.text
    assert VERDICT not in verdict.text


def test_a_failed_repeat_does_not_count_as_a_pair(tmp_path: Path) -> None:
    shape = dataclasses.replace(SMALL, repeats=5, verdicts=[VERDICT], bad={"e0-w0-r4": Status.FAILED})
    assert "4 repeats: figures are shown" in section(report(tmp_path, shape), "verdict").text


def test_one_engine_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    page = report(tmp_path, dataclasses.replace(SMALL, engines=("apex",)))
    assert "One engine" in section(page, "verdict").text


def test_failures_come_with_their_reason(page: Element) -> None:
    listed = rows(section(page, "problems").one("table"))
    assert listed[0][:3] == ["failed", "apex on long_output", "0, 1, 2"]
    assert "OutOfMemory: 9.1 GiB wanted, 8.0 GiB given" in listed[0][3]
    assert "Traceback" in listed[0][3]
    assert [row[0] for row in listed[1:3]] == ["refused", "invalid"]
    assert "workload clipped to 2400 tokens" in listed[2][3]


def test_requests_that_did_not_finish_are_counted(page: Element) -> None:
    listed = rows(section(page, "problems").one("table"))
    assert ["requests", "gpu_only on chat", "", "2 of 240 requests refused: longer than the model's context"] in listed


def test_a_run_without_problems_says_so(tmp_path: Path) -> None:
    page = report(tmp_path, dataclasses.replace(SMALL, requests=8))
    assert "Nothing: 4 cells ran to the end" in section(page, "problems").text


def test_an_engine_that_failed_shows_its_status_and_no_figure(page: Element) -> None:
    chat, long_output = section(page, "results").all("table", class_="figures")
    apex = rows(long_output)[2]
    assert apex == ["apex", "failed OutOfMemory: 9.1 GiB wanted, 8.0 GiB given", "0 of 3"]
    assert rows(chat)[1][-1] == "2 of 3"


def test_figures_are_medians_with_their_span_in_readable_units(tmp_path: Path) -> None:
    path = build(tmp_path, dataclasses.replace(SMALL, repeats=3))
    folder = RunFolder.open(path)
    for repeat, value in enumerate((0.0412, 0.0398, 0.0450)):
        cell = folder.read_cell_summary(f"e1-w0-r{repeat}")
        metrics = {**cell.metrics, "ttft_s_p50": value, "e2e_s_p50": 300 * value}
        del metrics["ttft_s_p99"]
        folder.write_cell_summary(
            dataclasses.replace(cell, metrics=metrics, unavailable={"ttft_s_p99": "too few requests"})
        )
    table = section(parse(write_report(path)), "results").all("table", class_="figures")[0]
    heads = [cell.text for cell in table.one("thead").all("th")]
    apex = [cell for cell in table.one("tbody").all("tr")[1].children if isinstance(cell, Element)]
    column = heads.index("TTFT p50 ms, emulated") + 1  # one more: the strip has no head
    assert apex[column].text == "41.2 39.8–45.0"
    assert apex[column].attributes["title"] == "median 0.0412 of 3 repeats: 0.0412, 0.0398, 0.045"
    assert apex[column + 1].text == "–"
    assert apex[column + 1].attributes["title"] == "too few requests"
    assert "E2E p50 s, emulated" in heads


def test_every_metric_can_be_found(page: Element) -> None:
    found = [row[0] for table in section(page, "results").all("table") for row in rows(table)]
    assert "goodput_rps" in found


def test_the_envelope_marks_where_engines_differ(page: Element) -> None:
    envelope = section(page, "envelope")
    assert "accel_memory_bytes 14.6 GiB" in envelope.text
    different = [row.text for row in envelope.all("tr", class_="differs")]
    assert different == ["host_kv_blocks 0 2,048 2,048", "attention.host none avx512 avx512"]
    assert "workload clipped to 2400 tokens: 3 of 120 requests everywhere" in envelope.text
    assert "gpu_power_w: no NVIDIA driver on this machine everywhere" in envelope.text


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


def test_requests_are_sampled_from_every_cell(page: Element) -> None:
    table = section(page, "requests").one("table", class_="sortable")
    listed = rows(table)
    assert len(listed) <= 200
    assert f"{len(listed)} of 1,560 requests: the first 15 of each cell" in section(page, "requests").text
    assert {row[0] for row in listed} == {"gpu_only", "neo", "apex"}
    assert listed[0][-1] == "warm-up"


def test_a_request_that_never_ran_has_dashes(tmp_path: Path) -> None:
    shape = dataclasses.replace(SMALL, engines=("apex",), repeats=1)
    listed = rows(section(report(tmp_path, shape), "requests").one("table", class_="sortable"))
    assert len(listed) == 12
    assert listed[-1][-1] == "refused"
    assert listed[-1][8:10] == ["–", "–"]


def test_provenance_says_how_to_run_it_again(page: Element) -> None:
    provenance = section(page, "provenance")
    assert provenance.one("pre", class_="command").text.startswith("harness run --config quickstart.yaml")
    assert "0123456789abcdef0123456789abcdef01234567 with uncommitted changes" in provenance.text
    assert "repeats: 3" in provenance.one("details").text
    assert "Machine cpu Xeon Platinum 8259CL" in provenance.text


def test_definitions_give_formulas(page: Element) -> None:
    assert ["tpot_s", "(last token − first token) / (output tokens − 1)", "Each request counts once."] in rows(
        section(page, "definitions").one("table")
    )
