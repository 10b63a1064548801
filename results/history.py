"""The history of nights: every cell of every run that was added, with its raw figures, in one embedded file.

Keeps and finds, and judges nothing. Reading gives values in the order of nights; statistics are worked out by readers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from results.errors import ResultsError
from results.history_file import HistoryFile
from results.history_rows import Ack, Added, CellRow, Role, RunHead, RunRow, SeriesKey, Skipped, Value, Version
from results.schema import Label

_HEAD = "key, night, role, name, created_utc, package, git_commit, commit_utc, changed, unfit, environment, config"
_CELL = """
SELECT run.night, run.role, run.key, cell.repeat, found.value, cell.reason
FROM cell JOIN run ON run.id = cell.run JOIN testbed ON testbed.id = cell.testbed JOIN setup ON setup.id = cell.setup
LEFT JOIN value AS found ON found.cell = cell.id AND found.metric = (SELECT id FROM metric WHERE name = ?)
WHERE cell.engine = ? AND cell.workload = ? AND cell.label = ? AND testbed.digest = ? AND setup.digest = ?
ORDER BY run.night, run.created_utc, run.id, cell.repeat
"""


class History:
    """Open it with `opened`."""

    def __init__(self, file: HistoryFile) -> None:
        self._file = file

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, create: bool = False) -> Iterator[History]:
        file = HistoryFile(path, create=create)
        try:
            yield cls(file)
        finally:
            file.close()

    # --- changes ------------------------------------------------------------------------------------------------------

    def add(self, run: RunRow) -> Added:
        """With all its cells, or not at all. A run that is there with other cells gets those it has now."""
        with self._file.changing() as connection:
            found = connection.execute("SELECT id, content, night, role FROM run WHERE key = ?", (run.key,)).fetchone()
            if found is not None:
                number, content, *as_what = found
                if as_what != [run.night, run.role]:
                    raise ResultsError(
                        f"{run.source}: this run is there already, as {as_what[1]} of {as_what[0]}, and not as "
                        f"{run.role} of {run.night}"
                    )
                if content == run.content:
                    return Added.KNOWN
                connection.execute("DELETE FROM run WHERE id = ?", (number,))
            _insert(connection, run)
            return Added.NEW if found is None else Added.COMPLETED

    def acknowledge(self, ack: Ack) -> None:
        """A second one of the same night replaces the first."""
        with self._file.changing() as connection:
            values = (ack.series, ack.night, _storable(ack.reason), ack.made_utc)
            connection.execute("INSERT OR REPLACE INTO ack VALUES (?, ?, ?, ?)", values)

    def skip(self, skipped: Skipped) -> None:
        with self._file.changing() as connection:
            values = (skipped.night, skipped.testbed, _storable(skipped.reason))
            connection.execute("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?)", values)

    # --- questions ----------------------------------------------------------------------------------------------------

    def series(self) -> tuple[SeriesKey, ...]:
        """Every one there is, in the order in which they began."""
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT cell.engine, cell.workload, cell.label, testbed.digest, setup.digest FROM cell"
                " JOIN testbed ON testbed.id = cell.testbed JOIN setup ON setup.id = cell.setup"
                " GROUP BY cell.engine, cell.workload, cell.label, cell.testbed, cell.setup ORDER BY min(cell.id)"
            ).fetchall()
        return tuple(SeriesKey(engine, workload, Label(label), *rest) for engine, workload, label, *rest in found)

    def values(self, key: SeriesKey, metric: str) -> tuple[Value, ...]:
        """One per cell of the series, whatever became of it, by night and repeat."""
        asked = (metric, key.engine, key.workload, key.label, key.testbed, key.setup)
        with self._file.reading() as connection:
            found = connection.execute(_CELL, asked).fetchall()
        return tuple(Value(night, Role(role), *rest) for night, role, *rest in found)

    def metrics(self) -> tuple[str, ...]:
        """Those that any cell has."""
        with self._file.reading() as connection:
            return tuple(name for (name,) in connection.execute("SELECT name FROM metric ORDER BY name"))

    def runs(self) -> tuple[RunHead, ...]:
        with self._file.reading() as connection:
            found = connection.execute(f"SELECT {_HEAD} FROM run ORDER BY night, created_utc, id").fetchall()
        return tuple(map(_head, found))

    def testbeds(self) -> dict[str, Mapping[str, object]]:
        """The facts of each, by its digest."""
        return self._documents("SELECT digest, facts FROM testbed ORDER BY id")

    def setups(self) -> dict[str, Mapping[str, object]]:
        return self._documents("SELECT digest, asked FROM setup ORDER BY id")

    def acks(self) -> tuple[Ack, ...]:
        with self._file.reading() as connection:
            return tuple(Ack(*row) for row in connection.execute("SELECT * FROM ack ORDER BY night, series"))

    def skipped(self) -> tuple[Skipped, ...]:
        with self._file.reading() as connection:
            return tuple(Skipped(*row) for row in connection.execute("SELECT * FROM skipped ORDER BY night, testbed"))

    def _documents(self, query: str) -> dict[str, Mapping[str, object]]:
        with self._file.reading() as connection:
            return {digest: json.loads(text) for digest, text in connection.execute(query)}


def _insert(connection: sqlite3.Connection, run: RunRow) -> None:
    version = run.version
    row = (
        *(run.key, run.content, run.night, run.role, run.name, run.created_utc, run.backend),
        *(version.package, version.commit, version.commit_utc, version.changed),
        *(run.unfit, _text(run.environment), _text(run.config), run.source),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    number = _insert_row(connection, "run", row)
    for cell in run.cells:
        _insert_cell(connection, number, cell)


def _insert_cell(connection: sqlite3.Connection, run: int, cell: CellRow) -> None:
    testbed = _number(connection, "testbed", "digest", cell.testbed.digest, _text(cell.testbed.facts))
    setup = _number(connection, "setup", "digest", cell.setup.digest, _text(cell.setup.asked))
    row = (run, cell.cell_id, cell.engine, cell.workload, cell.label, testbed, setup, cell.repeat, cell.status)
    number = _insert_row(connection, "cell", (*row, cell.reason))
    values = [(_number(connection, "metric", "name", name), number, value) for name, value in cell.metrics.items()]
    connection.executemany("INSERT INTO value VALUES (?, ?, ?)", values)


def _number(connection: sqlite3.Connection, table: str, column: str, name: str, *rest: str) -> int:
    """Of the row with this name, made where there is none."""
    query = f"SELECT id FROM {table} WHERE {column} = ?"
    found: Sequence[int] | None = connection.execute(query, (_storable(name),)).fetchone()
    if found is not None:
        return found[0]
    return _insert_row(connection, table, (name, *rest))


def _insert_row(connection: sqlite3.Connection, table: str, row: Sequence[object]) -> int:
    """Under a number of its own, which is returned. Lone surrogates, which a text from JSON may hold, are replaced."""
    values = [_storable(value) if isinstance(value, str) else value for value in row]
    marks = ", ".join("?" for _ in values)
    number = connection.execute(f"INSERT INTO {table} VALUES (NULL, {marks})", values).lastrowid
    assert number is not None
    return number


def _head(row: Sequence[object]) -> RunHead:
    key, night, role, name, created_utc, package, commit, commit_utc, changed, unfit, environment, config = map(
        str, row
    )
    version = Version(package, commit, commit_utc, changed == "1")
    documents = json.loads(environment), json.loads(config)
    return RunHead(key, night, Role(role), name, created_utc, version, unfit, *documents)


def _text(document: Mapping[str, object]) -> str:
    return json.dumps(document, sort_keys=True)


def _storable(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode("utf-8")
