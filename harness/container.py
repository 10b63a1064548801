"""The one file a bundle is: a zip whose members are stored as they are, sorted, without times and owners.

Stored, so that equal folders give equal bytes whatever zlib is at hand, nothing can swell when it is opened, and the
whole container can be written again and compared to the last byte. Whoever opens one trusts nothing in it.
"""

from __future__ import annotations

import io
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harness.errors import ConfigError
from results.files import publish, temporary_beside, writing

MOST_FILES = 100_000
MOST_BYTES = 64 << 30
LONGEST_PATH = 1000
LONGEST_NAME = 250
DEEPEST = 8
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the least that a zip can say
_UNIX = 3
_PLAIN_FILE = (stat.S_IFREG | 0o644) << 16
_CHUNK_BYTES = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, ValueError, OSError)


class NotABundleError(ConfigError):
    """What was given is no bundle, or one that is not opened because it could do harm."""


@dataclass(frozen=True, slots=True)
class Opened:
    """`top`: the one folder in it. `damaged`: members that could not be read as they were written, and why."""

    top: Path
    damaged: dict[str, str]


def packed(top: str, files: Mapping[str, Path | bytes], out: Path) -> None:
    """These files, or what is to be in them, as `top/...`. The container appears whole or not at all."""
    temporary = temporary_beside(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(top, files, temporary)
            publish(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)


def unpacked(bundle: Path, into: Path) -> Opened:
    """Opens a bundle into an empty folder. NotABundleError before anything is written that should not be."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            members = archive.infolist()
            top = _checked(members, bundle.stat().st_size)
            if sum(member.file_size for member in members) > shutil.disk_usage(into).free:
                raise NotABundleError(f"{bundle}: there is no room to open it at {into}; set TMPDIR to a larger place")
            damaged = {}
            for member in members:
                if problem := _extract(archive, member, into):
                    damaged[member.filename.partition("/")[2]] = problem
    except NotABundleError as error:
        raise NotABundleError(f"{bundle}: {error}" if str(bundle) not in str(error) else str(error)) from None
    except _UNREADABLE as error:
        raise NotABundleError(f"{bundle}: not a bundle: {str(error) or type(error).__name__}") from None
    return Opened(into / top, damaged)


def first_stray_byte(bundle: Path, opened: Opened) -> int | None:
    """Where the container is not what packing these files gives: a comment, another time, something between members."""
    with tempfile.TemporaryDirectory(dir=opened.top.parent) as folder:
        again = Path(folder) / "again.zip"
        _write(opened.top.name, dict(files_below(opened.top)), again)
        return _first_difference(bundle, again)


def path_problem(path: str) -> str:
    """Why this path may not be in a bundle; empty where it may."""
    pieces = path.split("/")
    if any(piece in ("", ".", "..") for piece in pieces):
        return "leads out of the bundle, or is none"
    if any(ord(letter) < 32 or letter in "\\:\x7f" for letter in path):
        return "has a character that is not allowed there"
    if len(path) > LONGEST_PATH or len(pieces) > DEEPEST or any(len(piece.encode()) > LONGEST_NAME for piece in pieces):
        return "is too long"
    return ""


def _write(top: str, files: Mapping[str, Path | bytes], out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            source = files[path]
            member = zipfile.ZipInfo(f"{top}/{path}", _FIRST_DAY)
            member.create_system, member.external_attr = _UNIX, _PLAIN_FILE
            member.file_size = len(source) if isinstance(source, bytes) else source.stat().st_size
            with _reading(source) as read, archive.open(member, "w") as write:
                shutil.copyfileobj(read, write, _CHUNK_BYTES)


def _reading(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _checked(members: Sequence[zipfile.ZipInfo], container_bytes: int) -> str:
    """The name of the one folder on top."""
    names = [member.filename for member in members]
    if not members or len(members) > MOST_FILES:
        raise NotABundleError(f"not a bundle: it has {len(members)} files")
    if len({name.casefold() for name in names}) < len(names):
        raise NotABundleError("not opened: two of its files have one name")
    for member in members:
        if problem := path_problem(member.filename) or _kind_problem(member):
            raise NotABundleError(f"not opened: {member.filename!r} {problem}")
    # Stored members cannot overlap without being more than the file they come in.
    if sum(member.file_size for member in members) > min(container_bytes, MOST_BYTES):
        raise NotABundleError("not opened: its files claim to be larger than it is, or than is allowed")
    tops = {name.partition("/")[0] for name in names}
    if len(tops) > 1 or any("/" not in name for name in names):
        raise NotABundleError("not a bundle: its files are not in one folder")
    return tops.pop()


def _kind_problem(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.is_dir() or kind not in (0, stat.S_IFREG):
        return "is not a plain file"
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        return "is compressed, which nothing in a bundle is"
    return "is encrypted" if member.flag_bits & 0x1 else ""


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path) -> str:
    """What is wrong with the member; then it is not there."""
    target = into / PurePosixPath(member.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(member) as read, target.open("xb") as write:
            shutil.copyfileobj(read, write, _CHUNK_BYTES)
    except _UNREADABLE as error:
        target.unlink(missing_ok=True)
        return str(error) or type(error).__name__
    return ""


def _first_difference(one: Path, other: Path) -> int | None:
    at = 0
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            a, b = left.read(_CHUNK_BYTES), right.read(_CHUNK_BYTES)
            if a != b:
                return at + next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            if not a:
                return None
            at += len(a)


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file by its path in the folder, hidden ones too. ConfigError at a link or a device."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ConfigError(f"{path}: is a link or no plain file; a bundle has plain files only")
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path
