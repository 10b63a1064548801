"""Loading runs in every state: whole, half-written, damaged, copied without their cells."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from results.errors import ResultsError
from results.query import Spread, load_run
from results.schema import Label, Status
from tests.results.run_folders import Shape, build

SMALL = Shape(requests=3, tokens=2, steps=3)


def test_cells_are_grouped_with_their_repeats_in_planned_order(tmp_path: Path) -> None:
    run = load_run(build(tmp_path, SMALL))
    assert run.engines == ("gpu_only", "neo", "apex")
    assert run.workloads == ("chat", "long_output")
    assert [(group.workload, group.engine) for group in run.groups()][:4] == [
        ("chat", "gpu_only"),
        ("chat", "neo"),
        ("chat", "apex"),
        ("long_output", "gpu_only"),
    ]
    assert all([cell.repeat for cell in group.cells] == [0, 1, 2] for group in run.groups())
    assert len(run.groups("chat")) == 3
    assert run.paired_repeats() == 3
    assert (run.incomplete, run.missing, dict(run.unreadable)) == ((), (), {})


def test_statuses_are_kept_apart(tmp_path: Path) -> None:
    bad = {"e2-w0-r1": Status.FAILED, "e2-w1-r0": Status.INVALID, "e0-w0-r0": Status.REFUSED}
    run = load_run(build(tmp_path, Shape(requests=3, tokens=2, steps=3, repeats=2, bad=bad)))
    assert [cell.cell_id for cell in run.with_status(Status.FAILED)] == ["e2-w0-r1"]
    apex = next(group for group in run.groups("chat") if group.engine == "apex")
    assert [cell.repeat for cell in apex.ok] == [0]
    assert [cell.status for cell in apex.not_ok] == [Status.FAILED]
    assert run.paired_repeats() == 2


def test_pairs_are_repeats_that_two_engines_share(tmp_path: Path) -> None:
    bad = {"e0-w0-r0": Status.FAILED, "e1-w0-r1": Status.FAILED}
    shape = Shape(engines=("neo", "apex"), workloads=("chat",), requests=3, tokens=2, steps=3, bad=bad)
    assert load_run(build(tmp_path, shape)).paired_repeats() == 1


def test_a_half_written_run_lists_what_is_missing(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL)
    (path / "summary.json").unlink()
    (path / "cells" / "e0-w0-r1" / "summary.json").unlink()
    shutil.rmtree(path / "cells" / "e1-w1-r2")
    (path / "cells" / "e0-w0-r1" / ".summary.json.12ab.tmp").write_text("{")
    (path / "cells" / ".cell.tmp").mkdir()
    (path / "cells" / "stray.txt").write_text("")
    run = load_run(path)
    assert run.incomplete == ("e0-w0-r1",)
    assert run.missing == ("e1-w1-r2",)
    assert len(run.cells) == 16


def test_a_damaged_summary_does_not_hide_the_other_cells(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL)
    (path / "cells" / "e0-w0-r0" / "summary.json").write_text("{}")
    (path / "summary.json").write_text("not JSON")
    run = load_run(path)
    assert set(run.unreadable) == {"e0-w0-r0", "summary.json"}
    assert "schema_version: missing" in run.unreadable["e0-w0-r0"]
    assert len(run.cells) == 17


def test_a_run_without_its_cells_is_read_from_its_summary(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL)
    shutil.rmtree(path / "cells")
    run = load_run(path)
    assert len(run.cells) == 18
    assert run.missing == ()


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL)
    shutil.rmtree(path / "cells")
    (path / "summary.json").unlink()
    run = load_run(path)
    assert (run.cells, len(run.missing), run.labels) == ((), 18, (Label.EMULATED,))
    assert run.paired_repeats() == 0


def test_spreads_take_the_repeats_that_have_the_metric(tmp_path: Path) -> None:
    group = load_run(build(tmp_path, SMALL)).groups("chat")[0]
    spread = group.spread("ttft_s_p50")
    assert spread is not None
    assert len(spread.values) == 3
    assert spread.low <= spread.median <= spread.high
    assert group.spread("no_such_metric") is None
    assert Spread((3.0, 1.0, 2.0)).median == 2.0


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="not a run folder"):
        load_run(tmp_path)
