"""An engine that cheats is found out, in the summary of its cells, on the terminal, in the report and by `compare`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from harness.compare import compare_runs
from harness.metric_catalogue import THROUGHPUT
from harness.tables import result_table
from reports.page import write_report
from results.schema import RunSummary, Status
from tests.cheating.cheats import LIAR, LIE_AT
from tests.cheating.conftest import Caught

ALLOWED, TAKEN = 480, 576
HONEST = ("gpu_only", "honest")
UNFAIR = ("greedy", "greedy_liar")
DISHONEST = {
    "early": r"reported \d+ tokens up to 0\.31 s before they were handed over",
    "generous": r"handed over [\d,]+ tokens more than were asked for \(request \d+ asked for \d\d\)",
    "cut_short": r"ended 30 requests before all tokens were there \(request 0 after 1 of ",
    "haunted": r"handed over \d+ tokens for requests that were never sent or had already ended \(request 4711 first\)",
}


def table_row(caught: Caught, engine: str) -> list[str]:
    """As on the terminal: workload, engine, cells ok, then the figures."""
    table = result_table(RunSummary(caught.run.cells))
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    return next([str(each) for each in row] for row in rows if str(row[1]).split()[0] == engine)


@cache
def report_of(run_dir: Path) -> str:
    """Drawn once: it takes seconds, and every test reads the same one."""
    return write_report(run_dir).read_text(encoding="utf-8")


def report_rows(caught: Caught, engine: str) -> list[str]:
    """Rows of the report's tables that begin with the engine's name, without their tags."""
    page = report_of(caught.path)
    rows = [re.sub(r"<[^>]*>", " ", row).strip() for row in re.findall(r"<tr\b[^>]*>.*?</tr>", page, re.DOTALL)]
    return [" ".join(row.split()) for row in rows if row.startswith(engine)]


# --- nobody honest is accused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", HONEST)
def test_the_honest_are_not_accused(simulated: Caught, engine: str) -> None:
    for cell in simulated.cells(engine):
        assert (cell.status, cell.error, cell.unfair) == (Status.OK, None, ())
        assert not any("report" in note for note in cell.notes)
        assert cell.parity is not None
        assert (cell.parity.held, cell.parity.note) == (None, "not checked: simulated: no tokens")
    assert table_row(simulated, engine)[1:3] == [engine, "5/5"]


def test_the_honest_engine_has_the_right_tokens(emulated: Caught) -> None:
    cell = emulated.cell("gpu_only")
    assert (cell.status, cell.unfair) == (Status.OK, ())
    assert cell.parity is not None
    assert (cell.parity.held, cell.parity.checked_requests, cell.parity.checked_tokens) == (True, 10, 120)
    assert cell.parity.note == "120 tokens of 10 of 10 timed requests are those of transformers, 0 near-ties excused"
    assert (emulated.run.cell_dir(cell) / "tokens.jsonl.gz").is_file()


# --- more KV than the others ------------------------------------------------------------------------------------------


def test_taking_more_is_unfair_and_keeps_its_figures(simulated: Caught) -> None:
    for cell in simulated.cells("greedy"):
        assert cell.status is Status.OK
        assert cell.unfair == (f"took {TAKEN} KV tokens on the accelerator, the envelope allows {ALLOWED} (+20 %)",)
        assert cell.metrics["output_tokens_per_s"] > 0


def test_what_is_seen_counts_whatever_is_claimed(simulated: Caught) -> None:
    for cell in simulated.cells("greedy_liar"):
        assert cell.resolved["accel_kv_tokens"] == ALLOWED
        (sentence,) = cell.unfair
        assert re.fullmatch(
            r"was seen to use 5\d\d KV tokens on the accelerator, the envelope allows 480 \(\+\d+ %\), "
            r"although it reports 480",
            sentence,
        )


@pytest.mark.parametrize("engine", UNFAIR)
def test_the_unfair_are_marked_on_the_terminal_and_get_no_verdict(simulated: Caught, engine: str) -> None:
    row = table_row(simulated, engine)
    assert row[1] == f"{engine} (unfair)"
    assert float(row[3].replace(",", "")) > 0
    said = [line for line in simulated.run.verdicts if line.split()[0] == engine]
    assert said[0] == f"{engine} took more than the envelope allows: no comparison with gpu_only"
    assert said[1].startswith(f"{engine} on long_output: 5 of 5 cells left out (unfair: ")
    assert "the envelope allows 480" in said[1]


def test_the_unfair_are_left_out_by_compare(simulated: Caught) -> None:
    found = compare_runs(simulated.path, simulated.path)
    assert {each.engine for each in found.comparisons if each.ratios} == set(HONEST)
    reasons = {(each.engine, each.reason) for each in found.left_out}
    assert ("greedy", f"unfair: took {TAKEN} KV tokens on the accelerator, the envelope allows 480 (+20 %)") in reasons
    assert found.exit_code == 0


# --- times and tokens that cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", DISHONEST)
def test_the_dishonest_are_invalid_and_keep_no_figure(simulated: Caught, engine: str) -> None:
    for cell in simulated.cells(engine):
        assert cell.status is Status.INVALID
        assert cell.error is not None
        assert re.search(DISHONEST[engine], cell.error), cell.error
        assert not {metric.key for metric in THROUGHPUT} & set(cell.metrics)
        assert engine == "cut_short" or cell.unavailable["output_tokens_per_s"] == "withheld: the cell is invalid"
    cells_ok, *figures = table_row(simulated, engine)[2:]
    assert cells_ok == "0/5"
    assert set(figures) == {"-"}  # nor a band
    assert f"{engine} has no valid cell: no comparison with gpu_only" in simulated.run.verdicts


def test_early_stamps_change_no_record(simulated: Caught) -> None:
    """What the engine says is replaced by when it was handed over: the records are those of the honest engine."""
    from results.store import read_requests

    honest, early = (read_requests(simulated.run.cell_dir(simulated.cell(engine))) for engine in ("honest", "early"))
    assert honest["last_token_s"].tolist() == early["last_token_s"].tolist()


@pytest.mark.parametrize("engine", DISHONEST)
def test_the_report_has_the_reason_instead_of_a_figure(simulated: Caught, engine: str) -> None:
    reason = simulated.cell(engine).error
    assert reason is not None
    (row,) = (row for row in report_rows(simulated, engine) if " invalid " in row)
    assert reason[:60] in row
    figures = next(row for row in report_rows(simulated, "honest")).split()
    assert float(figures[1]) > 0, "this is where a throughput would be"


# --- wrong tokens -----------------------------------------------------------------------------------------------------


def test_one_wrong_token_in_one_request_is_found(emulated: Caught) -> None:
    cell = emulated.cell("wrong_token")
    assert cell.status is Status.INVALID
    assert cell.parity is not None
    assert (cell.parity.held, cell.parity.checked_requests) == (False, 10)
    assert cell.error is not None
    assert f"wrong tokens: request {LIAR} at position {LIE_AT} of its answer has token" in cell.error
    assert "1 of 10 checked requests differ" in cell.error
    assert "output_tokens_per_s" not in cell.metrics
    assert table_row(emulated, "wrong_token")[2:] == ["0/1", "-", "-", "-", "-", "-"]
    row = next(row for row in report_rows(emulated, "wrong_token") if "invalid" in row)
    assert f"request {LIAR} at position {LIE_AT}" in row


def test_early_stamps_are_found_on_the_wall_clock(emulated: Caught) -> None:
    cell = emulated.cell("early")
    assert cell.status is Status.INVALID
    assert cell.error is not None
    assert re.search(r"reported \d+ tokens up to 0\.\d+ s before they were handed over", cell.error)
    assert cell.parity is not None
    assert cell.parity.held


def test_compare_says_why_they_are_left_out(emulated: Caught) -> None:
    found = compare_runs(emulated.path, emulated.path)
    assert [each.engine for each in found.comparisons if each.ratios] == ["gpu_only"]
    reasons = {each.engine: each.reason for each in found.left_out}
    assert f"request {LIAR} at position {LIE_AT}" in reasons["wrong_token"]
    assert "before they were handed over" in reasons["early"]
