"""A file system of its own for a test, where this user may mount one: small, or read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of `size`. Skips the test where mounting is not permitted: its stand-in runs everywhere."""
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", f"size={size}", "harness-test", str(folder)):
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, size: str) -> None:
    assert _mount("-o", f"remount,size={size}", str(folder))


def make_read_only(folder: Path) -> None:
    assert _mount("-o", "remount,ro", str(folder))


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except OSError:
        return False
