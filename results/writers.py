"""Appending to the parquet tables of one cell in bounded memory.

A writer holds at most `buffer_rows` rows, and its file has no name of its own until `close()`. What the columns mean is
said in `schema`; reading is `readers`' part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from results import files
from results.errors import ResultsError
from results.schema import REQUESTS, REQUESTS_FILE, SAMPLES_FILE, SCHEMA_VERSION, STEPS, STEPS_FILE

BUFFER_ROWS = 2000

Column = Sequence[object] | npt.NDArray[Any]


class TableWriter:
    """Appends rows or columns to one parquet file. Used in a `with`, an exception discards the file.

    A caller that wants to keep what a failed cell had recorded calls `close()`; that may be done any number of times.
    """

    def __init__(self, path: Path, schema: pa.Schema | None, buffer_rows: int = BUFFER_ROWS) -> None:
        self.path = path
        self._schema = schema
        self._names = frozenset(schema.names) if schema is not None else frozenset()  # to check a whole row at once
        self._buffer_rows = buffer_rows
        self._rows: list[dict[str, object]] = []
        self._batches: list[pa.RecordBatch] = []
        self._batched_rows = 0
        self._temporary: Path | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._closed = False

    def append(self, row: Mapping[str, object]) -> None:
        self.append_rows((row,))

    def append_rows(self, rows: Iterable[Mapping[str, object]]) -> None:
        self._check_open()
        for row in rows:
            self._check_columns(row)
            self._rows.append(dict(row))
            if self._batched_rows + len(self._rows) >= self._buffer_rows:
                self._flush()

    def append_columns(self, columns: Mapping[str, Column]) -> None:
        """All columns have the same length."""
        self._check_open()
        self._check_columns(columns)
        self._batch_rows()
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1:
            raise ResultsError(f"{self.path}: columns of different lengths: {sorted(lengths)}")
        schema = self._known(columns)
        absent = {name: [None] * max(lengths) for name in schema.names if name not in columns}
        with self._conversion():
            batch = pa.RecordBatch.from_pydict({**columns, **absent}, schema=schema)
        self._add(batch)
        if self._batched_rows >= self._buffer_rows:
            self._flush()

    def close(self) -> None:
        if self._closed:
            return
        try:
            self._flush()
            with files.writing(self.path):
                self._open_parquet().close()
                assert self._temporary is not None
                files.publish(self._temporary, self.path)
        except BaseException:
            self.discard()
            raise
        self._closed = True

    def discard(self) -> None:
        """Ends the writer without a trace; does nothing after `close()`."""
        if self._closed:
            return
        self._closed = True
        if self._parquet is not None:
            with suppress(OSError):  # closing writes the footer, which a full disk refuses like everything else
                self._parquet.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _infer(self, rows: Sequence[Mapping[str, object]]) -> pa.Schema:
        raise ResultsError(f"{self.path}: no columns were declared")

    def _known(self, columns: Mapping[str, Column]) -> pa.Schema:
        if self._schema is None:
            self._schema = self._infer([{name: values[0] for name, values in columns.items() if len(values)}])
        return self._schema

    @contextmanager
    def _conversion(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ResultsError(f"{self.path}: a value does not fit its column: {str(error).splitlines()[0]}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise ResultsError(f"{self.path}: written to after it was closed")

    def _check_columns(self, given: Mapping[str, object]) -> None:
        if self._schema is None or given.keys() == self._names:
            return
        names = set(self._schema.names)
        if unknown := sorted(given.keys() - names):
            raise ResultsError(f"{self.path}: unknown column {unknown[0]!r}")
        missing = sorted(name for name in names - given.keys() if not self._schema.field(name).nullable)
        if missing:
            raise ResultsError(f"{self.path}: column {missing[0]!r} is missing")

    def _batch_rows(self) -> None:
        if not self._rows:
            return
        if self._schema is None:
            self._schema = self._infer(self._rows)
        rows, self._rows = self._rows, []
        with self._conversion():
            batch = pa.RecordBatch.from_pylist(rows, schema=self._schema)
        self._add(batch)

    def _add(self, batch: pa.RecordBatch) -> None:
        for column, values in zip(batch.schema, batch.columns, strict=True):
            if values.null_count and not column.nullable:
                raise ResultsError(f"{self.path}: column {column.name!r} has no value in {values.null_count} row(s)")
        self._batches.append(batch)
        self._batched_rows += batch.num_rows

    def _flush(self) -> None:
        self._batch_rows()
        if self._batches:
            table = pa.Table.from_batches(self._batches, schema=self._schema)
            with files.writing(self.path):
                self._open_parquet().write_table(table, row_group_size=self._buffer_rows)
        self._batches, self._batched_rows = [], 0

    def _open_parquet(self) -> pq.ParquetWriter:
        if self._parquet is None:
            if self._schema is None:
                self._schema = self._infer([])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = files.temporary_beside(self.path)
            self._parquet = pq.ParquetWriter(self._temporary, self._schema)
        return self._parquet


class RequestWriter(TableWriter):
    """`requests.parquet` of a cell."""

    def __init__(self, cell_dir: Path, buffer_rows: int = BUFFER_ROWS) -> None:
        super().__init__(cell_dir / REQUESTS_FILE, REQUESTS, buffer_rows)


class StepWriter(TableWriter):
    """`steps.parquet` of a cell."""

    def __init__(self, cell_dir: Path, buffer_rows: int = BUFFER_ROWS) -> None:
        super().__init__(cell_dir / STEPS_FILE, STEPS, buffer_rows)


class SampleWriter(TableWriter):
    """`samples.parquet` of a cell: `time_s` and whatever the collectors give.

    Columns are those named at the start, else those of the first buffer; a column that turns up later is an error,
    because a parquet file cannot grow one. Numbers are float64, so that a counter absent for a while may be null.
    """

    def __init__(self, cell_dir: Path, columns: Sequence[str] | None = None, buffer_rows: int = BUFFER_ROWS) -> None:
        schema = None if columns is None else _sample_schema(dict.fromkeys(columns, 0.0))
        super().__init__(cell_dir / SAMPLES_FILE, schema, buffer_rows)

    def _infer(self, rows: Sequence[Mapping[str, object]]) -> pa.Schema:
        seen: dict[str, object] = {}
        for row in rows:
            seen |= {name: value for name, value in row.items() if value is not None or name not in seen}
        return _sample_schema(seen)


def _sample_schema(examples: Mapping[str, object]) -> pa.Schema:
    fields = [pa.field("time_s", pa.float64(), nullable=False)]
    for name, value in examples.items():
        if name != "time_s":
            kind = {str: pa.string(), bool: pa.bool_()}.get(type(value), pa.float64())
            fields.append(pa.field(name, kind))
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})
