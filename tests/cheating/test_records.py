"""What a cell's summary keeps of unfairness and wrong tokens, and which cells may be shown and compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.errors import ResultsError
from results.parity_check import ParityCheck
from results.query import Group
from results.schema import CellSummary, Label, Status

PARITY = ParityCheck(checked_requests=10, checked_tokens=120, excused=1, held=True, note="fine")
CELL = CellSummary("c", "apex", "chat", "cpu", Label.EMULATED, 0, Status.OK, {"output_tokens_per_s": 1.0})


def test_unfairness_and_parity_come_back_as_written() -> None:
    for cell in (
        CELL,
        replace(CELL, unfair=("took 5 CPU threads",), parity=PARITY),
        replace(CELL, parity=ParityCheck()),
    ):
        assert CellSummary.from_json(cell.to_json()) == cell
    data = replace(CELL, parity=PARITY).to_json()
    assert data["unfair"] == []
    assert data["parity"] == {
        "checked_requests": 10,
        "checked_tokens": 120,
        "excused": 1,
        "held": True,
        "note": "fine",
    }


def test_a_summary_from_before_either_is_read() -> None:
    data = {key: value for key, value in CELL.to_json().items() if key != "unfair"}
    assert CellSummary.from_json(data) == CELL


@pytest.mark.parametrize("parity", [[], {"checked_requests": "all"}, {**PARITY.to_json(), "held": "yes"}])
def test_a_broken_record_is_named(parity: object) -> None:
    with pytest.raises(ResultsError, match=r"summary\.json: parity"):
        CellSummary.from_json(CELL.to_json() | {"parity": parity})


def test_what_may_be_shown_and_what_compared() -> None:
    unfair = replace(CELL, repeat=1, unfair=("took 5 CPU threads",))
    failed = replace(CELL, repeat=2, status=Status.FAILED)
    group = Group("apex", "chat", (CELL, unfair, failed))
    assert group.shown == (CELL, unfair)
    assert group.comparable == (CELL,)
    wrong = replace(CELL, repeat=3, status=Status.INVALID, parity=replace(PARITY, held=False))
    group = Group("apex", "chat", (CELL, wrong))
    assert group.shown == group.comparable == ()
