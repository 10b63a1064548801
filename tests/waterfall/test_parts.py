"""How a window is cut, how a shape is fitted, and what is said where records are not enough."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from results.errors import ResultsError
from results.waterfall import Cause, explain_change
from results.window_steps import WindowSteps, read_pair
from results.work_shapes import fit
from tests.waterfall.synthetic import drawn_cell, write_cell


def parts_s(cell: WindowSteps) -> float:
    parts = cell.parts
    columns = (parts.accelerator, parts.host_excess, parts.link_excess, parts.waited, parts.nothing, parts.gap)
    return cell.empty_s + float(sum(column.sum() for column in columns))


def test_every_second_has_its_place(tmp_path: Path) -> None:
    steps = [
        # 1 s before it; the accelerator for 2 s, the host for 3, the link for 1 that nothing hides.
        {"started_s": 1.0, "ended_s": 5.0, "gpu_busy_s": 2.0, "cpu_busy_s": 3.0, "h2d_busy_s": 1.0, "decode_rows": 4},
        # nobody there from 6 to 8, a gap of 1 s on either side; the link longer than both, half a second without work.
        {"started_s": 9.0, "ended_s": 13.0, "gpu_busy_s": 0.5, "d2h_busy_s": 3.0, "decode_rows": 4, "waiting": 1},
    ]
    cell = write_cell(tmp_path / "a", steps, [(0.0, 6.0), (8.0, 14.0)], {"output_tokens_per_s_whole_run": 0.5})
    found, _ = read_pair(cell, cell)
    parts = found.parts
    assert (found.length_s, found.empty_s, found.tokens) == pytest.approx((14.0, 2.0, 7.0))
    assert parts.gap.tolist() == pytest.approx([1.0, 3.0])
    assert parts.accelerator.tolist() == pytest.approx([2.0, 0.5])
    assert parts.host_excess.tolist() == pytest.approx([1.0, 0.0])
    assert parts.link_excess.tolist() == pytest.approx([0.0, 2.5])
    assert parts.waited.tolist() == pytest.approx([1.0, 0.5])
    assert parts.nothing.tolist() == pytest.approx([0.0, 0.5])
    assert parts_s(found) == pytest.approx(found.length_s)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_tables_hold_nothing_is_lost(seed: int, tmp_path: Path) -> None:
    cells = drawn_cell(tmp_path / "a", 2 * seed), drawn_cell(tmp_path / "b", 2 * seed + 1)
    for cell in read_pair(*cells):
        assert parts_s(cell) == pytest.approx(cell.length_s, rel=1e-12)
    found, back = explain_change(*cells), explain_change(*reversed(cells))
    values = np.array([term.tokens_per_s for term in found.terms])
    assert np.isfinite(values).all()
    assert values.sum() == pytest.approx(found.change, abs=1e-9 * max(1, np.abs(values).max()))
    assert [term.tokens_per_s for term in back.terms] == pytest.approx((-values).tolist(), rel=1e-9, abs=1e-9)


def test_a_shape_and_two_paces_are_told_apart() -> None:
    random = np.random.default_rng(0)
    features = [np.column_stack([np.ones(200), random.integers(1, 60, 200)]).astype(float) for _ in range(2)]
    seconds = [pace * (each @ [2e-2, 5e-4]) for pace, each in zip((1.0, 1.7), features, strict=True)]
    weights = fit(features, seconds, seconds)
    assert weights[0] / weights[1] == pytest.approx(40, rel=1e-3)


def test_where_rows_never_vary_machines_are_taken_for_equal() -> None:
    """8 rows in 24 ms against 4 in 22 ms: 0.5 ms a row and 20 ms a step, and not another machine."""
    features = [np.tile([1.0, rows], (50, 1)) for rows in (8.0, 4.0)]
    seconds = [np.full(50, 24e-3), np.full(50, 22e-3)]
    assert fit(features, seconds, seconds) == pytest.approx([20e-3, 0.5e-3], rel=1e-6)


def test_a_cell_that_has_nothing_of_a_part_says_nothing_about_it() -> None:
    features = [np.ones((5, 1)), np.ones((5, 1))]
    assert fit(features, [np.zeros(5), np.full(5, 3.0)], [np.ones(5)] * 2) == pytest.approx([3.0])
    assert fit(features, [np.zeros(5)] * 2, [np.ones(5)] * 2).tolist() == [0.0]


def test_without_operators_attention_is_in_matrices(tmp_path: Path) -> None:
    step = {"started_s": 0.0, "ended_s": 1.0, "gpu_busy_s": 1.0, "decode_rows": 4}
    cells = [
        write_cell(tmp_path / name, [step], [(0.0, 1.0 + later)], {"output_tokens_per_s_whole_run": 4 / (1 + later)})
        for name, later in (("a", 0.0), ("b", 1.0))
    ]
    found = explain_change(*cells)
    assert found.notes == ("operators are unknown: accelerator, matrices has attention as well",)
    assert found.largest.cause is Cause.SCHEDULER
    assert found.largest.tokens_per_s == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "failed"}, "the cell is failed: it has no throughput to explain"),
        ({"metrics": {}}, "no output_tokens_per_s_whole_run in its summary"),
        (
            {"metrics": {"window_is_plateau": 1, "window_start_s": 50, "window_s": 1, "output_tokens_per_s": 1}},
            "none of its steps lies in the window",
        ),
    ],
)
def test_what_cannot_be_explained_is_said(tmp_path: Path, change: dict[str, object], message: str) -> None:
    step = {"started_s": 0.0, "ended_s": 1.0, "gpu_busy_s": 1.0, "decode_rows": 4}
    cell = write_cell(tmp_path / "a", [step], [(0.0, 1.0)], {"output_tokens_per_s_whole_run": 4.0})
    path = cell / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ResultsError, match=message):
        explain_change(cell, cell)


def test_an_engine_that_records_no_steps_is_not_explained(tmp_path: Path) -> None:
    cell = write_cell(tmp_path / "a", [], [(0.0, 1.0)], {"output_tokens_per_s_whole_run": 4.0})
    with pytest.raises(ResultsError, match="it has no steps"):
        explain_change(cell, cell)
