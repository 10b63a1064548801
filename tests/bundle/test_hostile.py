"""A bundle comes from anybody: what could do harm when it is opened is refused, and nothing is left behind."""

from __future__ import annotations

import gzip
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.container import MOST_FILES, NotABundleError, unpacked
from harness.verify import verify
from tests.bundle.conftest import Forge


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, mode << 16
    return made


def link(archive: zipfile.ZipFile) -> None:
    archive.writestr(member("run/cells", stat.S_IFLNK | 0o777), "/etc")


def twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("run/summary.json", "{}")
    archive.writestr("run/summary.json", "{}")


def two_cases(archive: zipfile.ZipFile) -> None:
    archive.writestr("run/summary.json", "{}")
    archive.writestr("run/Summary.json", "{}")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("run/zeros", bytes(50_000_000), zipfile.ZIP_DEFLATED)


def two_folders(archive: zipfile.ZipFile) -> None:
    archive.writestr("run/a", "")
    archive.writestr("other/a", "")


def file_as_folder(archive: zipfile.ZipFile) -> None:
    archive.writestr("run/a", "")
    archive.writestr("run/a/b", "")


def escaping(name: str) -> Callable[[zipfile.ZipFile], None]:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr(member(name), "gotcha")

    return fill


HOSTILE: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "parent": escaping("run/../../escaped"),
    "absolute": escaping("/escaped"),
    "backslash": escaping("run/..\\escaped"),
    "drive": escaping("run/C:escaped"),
    "newline": escaping("run/a\nb"),
    "empty piece": escaping("run//a"),
    "deep": escaping("run/" + "a/" * 20 + "b"),
    "long": escaping("run/" + "a" * 300),
    "folder": escaping("run/a/"),
    "device": lambda archive: archive.writestr(member("run/a", stat.S_IFCHR | 0o600), ""),
    "link": link,
    "twice": twice,
    "two cases": two_cases,
    "bomb": bomb,
    "two folders": two_folders,
    "file as folder": file_as_folder,
    "nothing": lambda archive: None,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_refused_and_nothing_is_left(kind: str, tmp_path: Path) -> None:
    container = tmp_path / "x.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(container, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        HOSTILE[kind](archive)
    (tmp_path / "into").mkdir()
    with pytest.raises(NotABundleError, match=r"x\.zip: not"):
        verify(container)
    if kind != "file as folder":  # which comes to light while it is opened
        with pytest.raises(NotABundleError):
            unpacked(container, tmp_path / "into")
    assert not any((tmp_path / "into").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "x.zip"]


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    """The bomb that needs no compression: many entries of one directory that name the same content."""
    container = tmp_path / "x.zip"
    with zipfile.ZipFile(container, "w") as archive:
        archive.writestr("run/0", bytes(100_000))
        [first] = archive.filelist
        for number in range(1, 50):
            copy = member(f"run/{number}")
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.file_size = copy.compress_size = first.file_size
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
    with pytest.raises(NotABundleError, match="larger than"):
        verify(container)


def test_too_many_files(tmp_path: Path) -> None:
    container = tmp_path / "x.zip"
    with zipfile.ZipFile(container, "w") as archive:
        archive.writestr("run/0", "")
        archive.filelist *= MOST_FILES + 1
    with pytest.raises(NotABundleError, match="files"):
        verify(container)


def test_a_link_in_a_folder_that_is_verified(forge: Forge) -> None:
    (forge.cell / "trace.json").unlink()
    (forge.cell / "trace.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="link"):
        verify(forge.top)


def test_records_that_swell(forge: Forge) -> None:
    (forge.cell / "journal.jsonl.gz").write_bytes(gzip.compress(bytes(200_000_000)))
    forge.mend_hashes()
    with pytest.raises(NotABundleError, match=r"journal\.jsonl\.gz"):
        verify(forge.top, simulate=False)
