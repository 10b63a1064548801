"""What is printed while cells run: the end of each, and at the end what watching the machine has cost."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.progress import MOST_WATCHING, Bars, Lines, costs_of_watching
from results.schema import CellSummary, Label, RunSummary, Status


def summary(*costs: float | None, wall_s: float = 10.0) -> RunSummary:
    cells = []
    for repeat, cost in enumerate(costs):
        metrics = {"cell_wall_s": wall_s} | ({} if cost is None else {"sampler_cost_share": cost})
        cells.append(CellSummary("c", "e", "w", "cpu", Label.EMULATED, repeat, Status.OK, metrics))
    return RunSummary(tuple(cells))


def printed(found: RunSummary, kind: type[Lines] = Lines) -> str:
    text = io.StringIO()
    watcher = kind(Console(file=text, width=200))
    watcher.run_ended(found)
    watcher.close()
    return text.getvalue().strip()


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_what_watching_cost_is_said_at_the_end(kind: type[Lines]) -> None:
    assert "watching the machine took 0.49% of a core, at most 0.61%" in printed(summary(0.0031, 0.0049, 0.0061), kind)


def test_too_much_is_said_to_be_too_much() -> None:
    assert printed(summary(0.004, 0.02)) == (
        f"watching the machine took 1.20% of a core, at most 2.00%, more than the {MOST_WATCHING:.0%} that it may"
    )


def test_nothing_is_said_where_nothing_was_watched_or_not_for_long() -> None:
    assert printed(summary(None)) == ""
    assert printed(summary(0.5, wall_s=0.1)) == ""
    assert costs_of_watching(RunSummary(())) == []
