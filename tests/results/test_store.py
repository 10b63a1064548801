"""The run folder: nothing is overwritten, nothing is half there, and completeness is the presence of one file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from results import files
from results.errors import ResultsError
from results.schema import Status
from results.store import RunFolder, read_json, write_json, write_text
from tests.results.run_folders import HOSTILE, WHEN, Shape, build, manifest, summary


def crash(source: object, target: object) -> None:
    raise OSError("the machine stopped here")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    made = [RunFolder.create(tmp_path / "runs", "t4", WHEN).path.name for _ in range(3)]
    assert made == ["t4-20300102T030405Z", "t4-20300102T030405Z-2", "t4-20300102T030405Z-3"]


@pytest.mark.parametrize("name", [HOSTILE, "../../etc/passwd", "", "..", "a b\n", "x" * 400])
def test_any_name_makes_a_folder_inside_the_given_one(tmp_path: Path, name: str) -> None:
    path = RunFolder.create(tmp_path, name, WHEN).path
    assert path.parent == tmp_path
    assert path.name.isascii()
    assert not set(path.name) & set("<>/ \n")


def test_a_file_in_the_way_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "t4-20300102T030405Z").write_text("")
    with pytest.raises(ResultsError, match="choose another --out"):
        RunFolder.create(tmp_path, "t4", WHEN)


def test_opening_wants_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such run folder"):
        RunFolder.open(tmp_path / "absent")
    with pytest.raises(ResultsError, match="it has no manifest"):
        RunFolder.open(tmp_path)


def test_a_cell_is_complete_when_its_summary_is_there(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "t4", WHEN)
    write_json(folder.cell_dir("c1") / "spec.json", {})
    assert not folder.is_complete("c1")
    folder.write_cell_summary(summary(Shape(), "c1", "apex", "chat", 0, Status.OK))
    assert folder.is_complete("c1")
    assert folder.read_cell_summary("c1").engine == "apex"


def test_one_process_at_a_time_runs_cells_in_a_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "t4", WHEN)

    def claim() -> None:
        with folder.claimed():
            pass

    with folder.claimed(), pytest.raises(ResultsError, match="another process is running cells in it"):
        claim()
    claim()
    assert names(folder.path) == ["cells"]


def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "t4", WHEN)
    cell_dir = folder.cell_dir("c1")
    (cell_dir / "probes").mkdir()
    for place in (cell_dir, cell_dir / "probes"):
        (place / ".steps.parquet.01234567.tmp").write_text("half")
        (place / "steps.parquet").write_text("whole")
    folder.remove_temporaries("c1")
    assert [path.name for path in cell_dir.rglob("*") if path.is_file()] == ["steps.parquet"] * 2


def test_a_crash_before_the_rename_leaves_the_cell_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path, "t4", WHEN)
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(ResultsError, match="cannot be written: the machine stopped here"):
        folder.write_cell_summary(summary(Shape(), "c1", "apex", "chat", 0, Status.OK))
    assert not folder.is_complete("c1")
    assert names(folder.cell_dir("c1")) == []


def test_a_crash_before_the_rename_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(ResultsError, match="cannot be written: the machine stopped here"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_the_data_are_flushed_before_the_name_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        done.append("flush")
        fsync(descriptor)

    def rename(one: Path, other: Path) -> None:
        done.append("rename")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    write_text(tmp_path / "file", "text")
    assert done == ["flush", "rename", "flush"]


def test_text_that_is_no_unicode_is_still_written(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "a \udcff b")
    assert (tmp_path / "file").read_text() == "a ? b"


@pytest.mark.parametrize("data", [{"x": float("nan")}, {"x": object()}])
def test_only_plain_json_is_written(tmp_path: Path, data: object) -> None:
    with pytest.raises(ResultsError, match="not plain JSON data"):
        write_json(tmp_path / "file.json", data)
    assert names(tmp_path) == []


def test_unreadable_json_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"half":')
    with pytest.raises(ResultsError, match="not readable as JSON"):
        read_json(tmp_path / "file.json")
    with pytest.raises(ResultsError, match="no such file"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("cell_id", ["", "a/b", "../x", ".hidden", "a\\b", "a\0b"])
def test_a_cell_id_cannot_leave_its_folder(tmp_path: Path, cell_id: str) -> None:
    with pytest.raises(ResultsError, match="cannot name a folder"):
        RunFolder.create(tmp_path, "t4", WHEN).cell_dir(cell_id)


def test_resuming_clears_dead_attempts_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder.open(build(tmp_path, Shape(repeats=1, requests=2, steps=2)))
    write_text(folder.cell_dir("dead") / ".requests.parquet.1234.tmp", "half")
    folder.clear_incomplete("dead")
    folder.clear_incomplete("never-begun")
    assert "dead" not in folder.cell_ids()
    with pytest.raises(ResultsError, match="is complete"):
        folder.clear_incomplete("e0-w0-r0")


def test_the_run_summary_gathers_complete_cells_in_planned_order(tmp_path: Path) -> None:
    shape = Shape(engines=("neo", "apex"), workloads=("chat",), repeats=2)
    folder = RunFolder.create(tmp_path, "t4", WHEN)
    folder.write_manifest(manifest(shape))
    for engine, workload, repeat in reversed(shape.cells):
        cell_id = shape.cell_id(engine, workload, repeat)
        folder.write_cell_summary(summary(shape, cell_id, engine, workload, repeat, Status.OK))
    folder.cell_dir("unfinished")
    written = folder.write_run_summary(["apex is faster"])
    assert [cell.cell_id for cell in written.cells] == ["e0-w0-r0", "e1-w0-r0", "e0-w0-r1", "e1-w0-r1"]
    assert folder.read_run_summary() == written


def test_temporary_names_are_told_apart(tmp_path: Path) -> None:
    temporary = files.temporary_beside(tmp_path / "summary.json")
    assert temporary.parent == tmp_path
    assert files.is_temporary(temporary)
    assert not files.is_temporary(tmp_path / "summary.json")
