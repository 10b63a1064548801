"""That no secret of this machine's environment is in files about to be handed over, wherever it came from.

An engine of somebody else's may have put a key into the reason of a failure. Looked for are the values of variables
whose names say that they are secret, and of those that the experiment names as holding a key; never shown is a value.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import ConfigError

SHORTEST = 8  # what is shorter is found by chance
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
_CHUNK_BYTES = 1 << 20


def refuse_secrets(files: Mapping[str, Path], config: object) -> None:
    """ConfigError that names file and variable."""
    secrets = _secrets(set(_named_in(config)))
    if not secrets:
        return
    for path, source in files.items():
        for name in _found_in(source, secrets):
            raise ConfigError(
                f"{path}: has the value of the environment variable {name} in it; take it out of the experiment and "
                f"run that again, or unset {name} if it is no secret"
            )


def _secrets(named: set[str]) -> dict[str, bytes]:
    return {
        name: value.strip().encode(errors="surrogateescape")
        for name, value in os.environ.items()
        if (name in named or _SECRET_NAME.search(name)) and len(value.strip()) >= SHORTEST and not _is_path(value)
    }


def _is_path(value: str) -> bool:
    """SSH_AUTH_SOCK and its like: where something lies, not what it is."""
    return value.startswith("/") and Path(value.partition(":")[0]).exists()


def _named_in(config: object) -> Iterator[str]:
    """Variables that any option called ..._env names."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if str(key).endswith("_env") and isinstance(value, str):
                yield value
            yield from _named_in(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _named_in(value)


def _found_in(source: Path, secrets: Mapping[str, bytes]) -> Iterator[str]:
    longest = max(len(value) for value in secrets.values())
    before = b""
    for chunk in _told(source):
        seen = before + chunk
        yield from (name for name, value in secrets.items() if value in seen)
        before = seen[-(longest - 1) :]


def _told(source: Path) -> Iterator[bytes]:
    """What a file says: its bytes, and those that packing hides."""
    if source.suffix == ".parquet":
        yield from _texts(source)
    else:
        opening = gzip.open if source.suffix == ".gz" else open
        with opening(source, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _texts(source: Path) -> Iterator[bytes]:
    with pq.ParquetFile(source) as table:
        columns: Sequence[str] = [field.name for field in table.schema_arrow if _is_text(field.type)]
        for batch in table.iter_batches(columns=columns) if columns else ():
            for column in batch.columns:
                yield "\n".join(text or "" for text in column.unique().to_pylist()).encode(errors="replace") + b"\n"
