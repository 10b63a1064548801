"""Reads a journal as plain lines, and writes it again with something changed."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lines = list[dict[str, Any]]


def lines_of(journal: Path) -> Lines:
    with gzip.open(journal, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def rewrite(journal: Path, into: Path, tamper: Callable[[Lines], None]) -> Path:
    lines = lines_of(journal)
    tamper(lines)
    with gzip.open(into, "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return into
