"""Files that appear whole or not at all: written beside their final name, flushed to the disk, then renamed.

A reader may therefore meet temporary files of a writer that died; `is_temporary` tells them apart. What the system
refuses (no room, no permission) is a `ResultsError` of one line, with the system's error as its cause.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from results.errors import ResultsError

_SUFFIX = ".tmp"


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces `path` atomically; missing folders are made. After a crash there is the old file or the new one."""
    temporary = temporary_beside(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            publish(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    # Names from files and models may hold lone surrogates; a report with a replacement mark beats no report.
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_json(path: Path, data: object) -> None:
    """Strict JSON (no NaN, no infinity), indented, so that a person can read a run folder without tools."""
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{path}: not plain JSON data: {error}") from error
    write_text(path, text + "\n")


def read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ResultsError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise ResultsError(f"{path}: not readable as JSON: {error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says in one line which file could not be written and why."""
    try:
        yield
    except OSError as error:
        # Libraries wrap the system's words in their own; the number is what they have in common.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ResultsError(f"{path}: cannot be written: {reason}") from error


def temporary_beside(path: Path) -> Path:
    """A fresh hidden name in the same folder, because a rename is atomic only within one file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")


def is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove_temporaries(folder: Path) -> None:
    """What writers that died left in this folder and below. Only for a folder that nobody writes to."""
    for path in folder.rglob(f".*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Gives a finished temporary file its final name. The data reach the disk before the name does."""
    _sync(temporary)
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # some network file systems cannot flush a folder; the file is whole anyway
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
