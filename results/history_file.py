"""The file of a history: its tables and their version, and transactions that two processes may begin at once.

sqlite in its default journal mode, which needs no helper files beside it once nobody writes, and which also holds on
disks that are shared between machines. What the system or sqlite refuses is a `ResultsError` of one line.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from results.errors import ResultsError

# History of the format. A reader takes its own version only, and brings older files up to it.
#   1  testbed, setup, run, cell, metric, value, ack, skipped
HISTORY_VERSION = 1
APPLICATION_ID = 0x48594852  # in the file's header: tells a history from anybody's database
WAIT_S = 60.0  # for another process's transaction

# A cell has some 150 metrics and a history thousands of cells: values lie by metric, so that a series is read without
# reading the others.
_TABLES = """
CREATE TABLE testbed (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, facts TEXT NOT NULL);
CREATE TABLE setup (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, asked TEXT NOT NULL);
CREATE TABLE run (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, content TEXT NOT NULL,
  night TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, created_utc TEXT NOT NULL, backend TEXT NOT NULL,
  package TEXT NOT NULL, git_commit TEXT NOT NULL, commit_utc TEXT NOT NULL, changed INTEGER NOT NULL,
  unfit TEXT NOT NULL, environment TEXT NOT NULL, config TEXT NOT NULL, source TEXT NOT NULL, added_utc TEXT NOT NULL
);
CREATE INDEX run_by_night ON run (night, id);
CREATE TABLE cell (
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
  cell_id TEXT NOT NULL, engine TEXT NOT NULL, workload TEXT NOT NULL, label TEXT NOT NULL,
  testbed INTEGER NOT NULL REFERENCES testbed, setup INTEGER NOT NULL REFERENCES setup,
  repeat INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, UNIQUE (run, cell_id)
);
CREATE INDEX cell_by_series ON cell (engine, workload, label, testbed, setup);
CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE value (
  metric INTEGER NOT NULL REFERENCES metric, cell INTEGER NOT NULL REFERENCES cell ON DELETE CASCADE,
  value REAL NOT NULL, PRIMARY KEY (metric, cell)
) WITHOUT ROWID;
CREATE INDEX value_by_cell ON value (cell);
CREATE TABLE ack (
  series TEXT NOT NULL, night TEXT NOT NULL, reason TEXT NOT NULL, made_utc TEXT NOT NULL, PRIMARY KEY (series, night)
);
CREATE TABLE skipped (
  night TEXT NOT NULL, testbed TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (night, testbed)
);
"""


class HistoryFile:
    """An open history. Changes only in `changing()`: all of them, or none."""

    def __init__(self, path: Path, *, create: bool) -> None:
        if not create and not path.is_file():
            raise ResultsError(f"{path}: no such history: `harness track add RUN --db {path}` begins one")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ResultsError(f"{path}: cannot hold a history: name a file in a folder that exists")
        self.path = path
        self._connection = self._opened()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Whoever comes second waits here, before reading anything that the first is about to change."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._told():
            yield self._connection

    def _opened(self) -> sqlite3.Connection:
        with self._told():
            connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
            try:
                connection.execute("PRAGMA foreign_keys = ON")
                self._require_tables(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _require_tables(self, connection: sqlite3.Connection) -> None:
        """Made under the lock, and looked for again there: two processes may both have found none."""
        if self._version(connection) == HISTORY_VERSION:
            return
        connection.execute("BEGIN IMMEDIATE")
        if self._version(connection) == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {HISTORY_VERSION}")
        connection.commit()

    def _version(self, connection: sqlite3.Connection) -> int:
        """0 for a file without anything in it."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if owner != APPLICATION_ID and (tables or version or owner):
            raise ResultsError(f"{self.path}: a database, but no history of this harness: name another --db")
        if version > HISTORY_VERSION:
            raise ResultsError(
                f"{self.path}: history version {version} is newer than this harness reads ({HISTORY_VERSION}): "
                "upgrade the harness"
            )
        return int(version)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                message = f"another process has held it for {WAIT_S:g} s: try again when it is done"
                raise ResultsError(f"{self.path}: {message}") from error
            raise ResultsError(f"{self.path}: cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ResultsError(f"{self.path}: not a history: {error}") from error
