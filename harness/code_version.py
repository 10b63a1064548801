"""Which code this is: one digest over the files that decide what is shown, and the versions of what it draws with.

A commit would not do: there is none where the product is installed, and a checkout may have changes of its own.
"""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engines", "harness", "reports", "results", "workloads")
SUFFIXES = frozenset({".py", ".yaml", ".html", ".css", ".js", ".json", ".csv"})
LEFT_OUT = frozenset({"__pycache__", "examples"})
# What a figure or a page may come out differently with.
LIBRARIES = ("numpy", "scipy", "pandas", "pyarrow", "matplotlib", "seaborn", "jinja2", "pyyaml")


@cache
def code_version() -> dict[str, str]:
    """By name; equal where the same folder gives the same report to the last byte."""
    found = {"code_sha256": _digest(), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*") if _counts(path)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content}  {path.relative_to(ROOT).as_posix()}\n".encode())
    return digest.hexdigest()


def _counts(path: Path) -> bool:
    return path.suffix in SUFFIXES and not LEFT_OUT & set(path.relative_to(ROOT).parts) and path.is_file()
