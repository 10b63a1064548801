"""SHA256SUMS: the hash of every other file of a bundle, in the form that `sha256sum -c` reads.

The hash of this one file stands for the whole bundle: it is what can be quoted. There is one way to write a list, so
that no byte of it can change without being noticed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

CHECKSUMS_FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\r\n]+)")
_CHUNK_BYTES = 1 << 20


def rendered(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)).encode()


def parsed(data: bytes) -> tuple[dict[str, str], str]:
    """Hashes by path, and what is wrong with the list; empty where nothing is."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return {}, f"byte {error.start} is no UTF-8"
    sums: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in sums:
            return sums, f"line {number} is {'a path for the second time' if match else 'not a hash and a path'}"
        sums[match[2]] = match[1]
    return sums, "" if rendered(sums) == data else "its lines are not in order, or its last one has no end"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
