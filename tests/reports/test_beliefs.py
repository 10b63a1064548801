"""What a wrong prediction cost: on the page and on the terminal, over the same engine with the right one."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from harness.tables import result_table
from reports.sections import beliefs
from reports.sweeps import rate_sweeps
from results.beliefs import skewed_groups
from results.schema import CellSummary, RunSummary
from tests.reports.pages import cell, fragment, rows, run_of

RATE = "output_tokens_per_s_whole_run"


def believing(
    bias: float, rate: float, repeat: int = 0, engine: str = "neo", unfair: tuple[str, ...] = ()
) -> CellSummary:
    told: dict[str, object] = {"workload": "chat", "point": f"links{bias:g}", "unskewed": bias == 1}
    return cell(
        engine,
        f"chat-links{bias:g}",
        repeat,
        resolved={"predictor": told if bias == 1 else {**told, "links": bias}},
        metrics={RATE: rate, "prediction_ratio": bias},
        unfair=unfair,
    )


def test_each_point_stands_beside_the_unskewed_one(tmp_path: Path) -> None:
    made = (believing(0.5, 90.0), believing(1, 100.0), believing(2, 60.0), believing(2, 30.0, engine="apex"))
    section = beliefs.build(run_of(tmp_path, *made))
    assert section is not None
    table = fragment(section.body).one("table")
    assert [row[:2] + row[3:] for row in rows(table)] == [
        ["neo", "links 0.5", "0.900", "0.500"],
        ["neo", "as it is", "1.000", "1.000"],
        ["neo", "links 2", "0.600", "2.000"],
        ["apex", "links 2", "–", "2.000"],
    ]
    assert "chat" in table.one("caption").text
    assert "emulated" in table.one("caption").text


def test_ratios_are_repeat_by_repeat(tmp_path: Path) -> None:
    """Repeats differ in their requests: medians of both sides would give 0.5."""
    right = [believing(1, rate, repeat) for repeat, rate in enumerate((100.0, 200.0, 1000.0))]
    wrong = [believing(2, rate, repeat) for repeat, rate in enumerate((90.0, 180.0, 100.0))]
    (found,) = [each for each in skewed_groups(run_of(tmp_path, *right, *wrong).groups()) if not each.belief.unskewed]
    assert found.of_unskewed == 0.9


def test_who_took_too_much_is_compared_with_nobody(tmp_path: Path) -> None:
    made = (believing(1, 100.0, unfair=("took more",)), believing(2, 60.0))
    assert [each.of_unskewed for each in skewed_groups(run_of(tmp_path, *made).groups())] == [None, None]


def test_without_such_a_sweep_there_is_no_table(tmp_path: Path) -> None:
    assert beliefs.build(run_of(tmp_path, cell("neo"))) is None


def test_the_terminal_has_the_same_ratio() -> None:
    written = io.StringIO()
    Console(file=written, width=200).print(result_table(RunSummary((believing(1, 100.0), believing(2, 60.0)))))
    lines = written.getvalue().splitlines()
    assert "of unskewed" in lines[1]
    assert ["1.000" in line for line in lines[2:]] == [True, False]
    assert ["0.600" in line for line in lines[2:]] == [False, True]


def test_rates_are_a_sweep_at_each_belief() -> None:
    names = [f"chat-{rate}rps-links{bias}" for bias in (1, 2) for rate in (0.5, 1)]
    found = {sweep.base: [rate for rate, _ in sweep.points] for sweep in rate_sweeps([*names, "chat-1rps"])}
    assert found == {"chat-links1": [0.5, 1.0], "chat-links2": [0.5, 1.0]}
