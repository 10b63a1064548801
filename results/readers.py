"""Reading the parquet tables of one cell: whole, as pandas frames, or in arrow batches where they may be long.

A table that is missing, damaged, from a newer version or short of a column asked for is a `ResultsError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from results.errors import ResultsError
from results.schema import REQUESTS_FILE, SAMPLES_FILE, SCHEMA_VERSION, STEPS_FILE

if TYPE_CHECKING:  # a cell's process writes only, and pandas takes a quarter of a second to import
    import pandas as pd

BATCH_ROWS = 8192


def read_requests(cell_dir: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    return _read(cell_dir / REQUESTS_FILE, columns)


def read_steps(cell_dir: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    return _read(cell_dir / STEPS_FILE, columns)


def read_samples(cell_dir: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    return _read(cell_dir / SAMPLES_FILE, columns)


def iter_requests(
    cell_dir: Path, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    return _iterate(cell_dir / REQUESTS_FILE, columns, batch_rows)


def iter_steps(
    cell_dir: Path, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    return _iterate(cell_dir / STEPS_FILE, columns, batch_rows)


def _read(path: Path, columns: Sequence[str] | None) -> pd.DataFrame:
    with _open(path, columns) as parquet:
        frame: pd.DataFrame = parquet.read(columns=columns).to_pandas()
        return frame


def _iterate(path: Path, columns: Sequence[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
    with _open(path, columns) as parquet:
        yield from parquet.iter_batches(batch_size=batch_rows, columns=columns)


def _open(path: Path, columns: Sequence[str] | None) -> pq.ParquetFile:
    try:
        parquet = pq.ParquetFile(path)
    except FileNotFoundError:
        raise ResultsError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ResultsError(f"{path}: not readable as parquet: {str(error).splitlines()[0]}") from error
    problem = _version_problem(parquet.schema_arrow) or _column_problem(parquet.schema_arrow, columns)
    if problem:
        parquet.close()
        raise ResultsError(f"{path}: {problem}")
    return parquet


def _version_problem(schema: pa.Schema) -> str | None:
    version = int((schema.metadata or {}).get(b"schema_version", b"1"))
    if version > SCHEMA_VERSION:
        return f"schema_version: {version} is newer than this harness reads ({SCHEMA_VERSION}): upgrade the harness"
    return None


def _column_problem(schema: pa.Schema, columns: Sequence[str] | None) -> str | None:
    missing = [name for name in columns or () if name not in schema.names]
    return f"column {missing[0]!r} is missing" if missing else None
