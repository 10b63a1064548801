"""What the bench makes of repeats, and which order of engines counts as lost."""

from __future__ import annotations

import pytest

from harness.bench_agreement import RATE, Row, _row, disorder
from results.schema import CellSummary, Label, Status


def _cell(rate: float, status: Status = Status.OK) -> CellSummary:
    metrics = {RATE: rate} if status is Status.OK else {}
    error = None if status is Status.OK else "ops were late"
    return CellSummary("id", "neo", "short", "cpu", Label.EMULATED, 0, status, metrics, {}, error=error)


def test_only_valid_repeats_are_compared_each_with_its_own_simulation() -> None:
    simulated = [_cell(10.0), _cell(20.0), _cell(40.0)]
    row = _row("short", "neo", simulated, [_cell(9.0), _cell(0.0, Status.INVALID), _cell(40.0)])
    assert (row.simulated, row.emulated) == (25.0, 24.5)
    assert row.ratio == pytest.approx(0.95)
    assert row.spread == pytest.approx(1 / 0.9)
    assert row.note == "1 of 3 repeats not valid"


def test_a_cell_that_was_never_valid_has_no_ratio_but_the_reason() -> None:
    row = _row("short", "neo", [_cell(10.0)], [_cell(0.0, Status.INVALID)])
    assert (row.emulated, row.ratio, row.note) == (None, None, "ops were late")


def test_an_order_is_lost_where_the_simulation_has_one() -> None:
    slow, fast = Row("short", "neo", 10.0, 11.0), Row("short", "apex", 12.0, 10.5)
    assert disorder([slow, fast]) == [("short", "apex", "neo")]
    assert disorder([slow, Row("short", "apex", 12.0, 12.0)]) == []
    assert disorder([slow, Row("short", "apex", 10.1, 10.5)]) == []  # a tie in the simulation
    assert disorder([slow, Row("long", "apex", 12.0, 10.5)]) == []
    assert disorder([slow, Row("short", "apex", 12.0)]) == []  # never valid
