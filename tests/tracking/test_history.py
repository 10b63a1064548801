"""The store: nothing is lost, nothing is there twice, nothing is there by halves, whoever else writes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.tracking.recording import recorded
from results.errors import ResultsError
from results.history import History
from results.history_file import HISTORY_VERSION
from results.history_rows import Ack, Added, Role, SeriesKey, Skipped
from results.schema import Label
from tests.harness.conftest import REPOSITORY
from tests.tracking.conftest import RATE, Make, copy, day, figures

ADD = """
import sys
from pathlib import Path
from harness.tracking.recording import recorded
from results.history import History
db, *runs = map(Path, sys.argv[1:])
rows = [recorded(run) for run in runs]
print("ready", flush=True)
sys.stdin.readline()
for row in rows:
    with History.opened(db, create=True) as history:
        history.add(row)
"""


def series_of(history: History, engine: str) -> SeriesKey:
    (found,) = [key for key in history.series() if key.engine == engine]
    return found


def test_every_metric_of_every_cell_is_kept_as_it_was(made: Path, db: Path) -> None:
    with History.opened(db, create=True) as history:
        assert history.add(recorded(made)) is Added.NEW
        for path in made.glob("cells/*/summary.json"):
            cell = json.loads(path.read_text())
            key = series_of(history, cell["engine"])
            kept = {name: history.values(key, name)[cell["repeat"]].value for name in cell["metrics"]}
            assert kept == cell["metrics"]
        assert {key.label for key in history.series()} == {Label.SIMULATED}
        assert [value.repeat for value in history.values(key, RATE)] == [0, 1, 2]


def test_a_run_that_is_there_is_left_alone_wherever_it_lies(made: Path, db: Path, tmp_path: Path) -> None:
    with History.opened(db, create=True) as history:
        history.add(recorded(made))
        before = db.read_bytes()
        assert history.add(recorded(made)) is Added.KNOWN
        assert history.add(recorded(copy(made, tmp_path / "copied"))) is Added.KNOWN
        assert len(history.runs()) == 1
    assert db.read_bytes() == before


def test_a_run_that_went_on_is_brought_up_to_date(night: Make, db: Path) -> None:
    run = night(0)
    *_, last = sorted(run.glob("cells/*"))
    kept = last.rename(run / "kept")
    with History.opened(db, create=True) as history:
        history.add(recorded(run))
        kept.rename(last)
        assert history.add(recorded(run)) is Added.COMPLETED
        assert sum(len(history.values(key, RATE)) for key in history.series()) == 6
        assert len(history.runs()) == 1


def test_a_run_cannot_be_of_two_nights(made: Path, db: Path) -> None:
    with History.opened(db, create=True) as history:
        history.add(recorded(made, night="2031-01-01"))
        with pytest.raises(ResultsError, match="there already, as night of 2031-01-01, and not as night of 2031-01-02"):
            history.add(recorded(made, night="2031-01-02"))
        with pytest.raises(ResultsError, match="not as control of 2031-01-01"):
            history.add(recorded(made, night="2031-01-01", role=Role.CONTROL))


def test_what_cannot_be_kept_whole_is_not_kept_at_all(made: Path, db: Path) -> None:
    row = recorded(made)
    with History.opened(db, create=True) as history:
        with pytest.raises(ResultsError):
            history.add(replace(row, cells=(*row.cells, row.cells[0])))
        assert (history.runs(), history.series(), history.testbeds()) == ((), (), {})
        assert history.add(row) is Added.NEW


def test_two_processes_may_add_at_once(night: Make, db: Path) -> None:
    """Both begin a file that does not exist yet, and go on side by side."""
    runs = [night(number) for number in range(12)]
    program = [sys.executable, "-c", ADD, str(db)]
    started = [
        subprocess.Popen(
            [*program, *map(str, mine)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for mine in (runs[:7], runs[5:])  # two runs are both's
    ]
    for each in started:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in started:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    for each in started:
        each.communicate(timeout=120)
        assert each.returncode == 0
    with History.opened(db) as history:
        assert [run.night for run in history.runs()] == [day(number) for number in range(12)]
        found = [value.value for value in history.values(series_of(history, "gpu_only"), RATE)]
        assert found == [value for run in runs for value in figures(run, RATE, "gpu_only")]
    with sqlite3.connect(db) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM cell").fetchone() == (72,)
    connection.close()


def test_acknowledgements_and_skipped_nights(made: Path, db: Path) -> None:
    with History.opened(db, create=True) as history:
        for reason in ("first", "second"):
            history.acknowledge(Ack("a/b/c@1", "2031-01-02", reason, "2031-01-03T00:00:00+00:00"))
        history.skip(Skipped("2031-01-04", "", "load 9 of 2 cores"))
    with History.opened(db) as history:
        assert [ack.reason for ack in history.acks()] == ["second"]
        assert [(each.night, each.reason) for each in history.skipped()] == [("2031-01-04", "load 9 of 2 cores")]


def test_failed_cells_are_kept_with_their_reason(night: Make, db: Path) -> None:
    def fail(cell: dict[str, object]) -> None:
        if cell["engine"] == "gpu_only" and cell["repeat"] == 1:
            cell.update(status="failed", error="OutOfMemory: 9.1 GiB wanted\nand more", metrics={})

    with History.opened(db, create=True) as history:
        history.add(recorded(night(0, cells=fail)))
        found = history.values(series_of(history, "gpu_only"), RATE)
    assert [value.value is None for value in found] == [False, True, False]
    assert [value.reason for value in found] == ["", "failed: OutOfMemory: 9.1 GiB wanted", ""]


def test_text_that_is_no_unicode_is_kept_as_far_as_it_goes(night: Make, db: Path) -> None:
    with History.opened(db, create=True) as history:
        history.add(recorded(night(0, cells=lambda cell: cell.update(workload="a\ud800b"))))
        assert {key.workload for key in history.series()} == {"a?b"}


# --- files that are not what they should be ---------------------------------------------------------------------------


def said(path: Path, create: bool = False) -> str:
    with pytest.raises(ResultsError) as caught, History.opened(path, create=create):
        pass
    (line,) = str(caught.value).splitlines()
    return line


def test_a_history_that_is_not_there(db: Path) -> None:
    assert "no such history: `harness track add RUN --db" in said(db)
    assert not db.exists()


def test_files_that_are_no_history(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database, but long enough to be read as the header of one, which is a hundred bytes long " * 9)
    assert "not a history" in said(text, create=True)
    theirs = tmp_path / "theirs"
    with sqlite3.connect(theirs) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    assert "no history of this harness" in said(theirs, create=True)
    assert "name a file in a folder that exists" in said(tmp_path, create=True)
    assert "name a file in a folder that exists" in said(tmp_path / "no" / "such", create=True)


def test_a_newer_history_is_left_alone(db: Path) -> None:
    with History.opened(db, create=True):
        pass
    with sqlite3.connect(db) as connection:
        connection.execute(f"PRAGMA user_version = {HISTORY_VERSION + 1}")
    connection.close()
    assert f"history version {HISTORY_VERSION + 1} is newer than this harness reads" in said(db)
