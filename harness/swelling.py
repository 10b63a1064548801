"""That records of a bundle are not far larger than they look: they come from anybody, and are read into memory."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.container import NotABundleError, files_below

MOST_TIMES = 400  # our longest journals of equal steps swell by a hundred
ALWAYS_ALLOWED_BYTES = 64 << 20
LONGEST_LINE_BYTES = 64 << 20
MOST_VALUES_PER_BYTE = 4096  # a column of one value takes next to nothing
_CHUNK_BYTES = 1 << 20


def require_modest(folder: Path) -> None:
    """NotABundleError at the first file that swells. One that cannot be read is somebody else's to report."""
    for path, source in files_below(folder):
        allowed = ALWAYS_ALLOWED_BYTES + MOST_TIMES * source.stat().st_size
        try:
            problem = _gzip_problem(source, allowed) if source.suffix == ".gz" else _table_problem(source, allowed)
        except (OSError, EOFError, zlib.error, pa.ArrowException):
            continue
        if problem:
            raise NotABundleError(f"not opened: {path} {problem}")


def _gzip_problem(source: Path, allowed: int) -> str:
    total = line = 0
    with gzip.open(source, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total += len(chunk)
            line = len(chunk) - chunk.rfind(b"\n") - 1 if b"\n" in chunk else line + len(chunk)
            if total > allowed or line > LONGEST_LINE_BYTES:
                return f"swells to more than {min(total, allowed):,} bytes, or has a line of more than is read at once"
    return ""


def _table_problem(source: Path, allowed: int) -> str:
    if source.suffix != ".parquet":
        return ""
    with pq.ParquetFile(source) as table:
        groups = [table.metadata.row_group(at) for at in range(table.metadata.num_row_groups)]
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    values = sum(column.num_values for column in columns)
    if sum(column.total_uncompressed_size for column in columns) > allowed:
        return f"swells to more than {allowed:,} bytes"
    most = ALWAYS_ALLOWED_BYTES + MOST_VALUES_PER_BYTE * source.stat().st_size
    return f"has {values:,} values, more than its size explains" if values > most else ""
