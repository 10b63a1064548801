"""The disk tier: what is written comes back from the map, and what the disk refuses leaves nothing behind."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.backends import disk_store
from engines.backends.disk_store import DiskError, DiskStore


def test_what_is_written_is_mapped(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10_000)
    weight = torch.arange(60.0).view(6, 10)
    store.write("layers.0.up", {"weight": weight[2:5]})
    assert torch.equal(store.read("layers.0.up")["weight"], weight[2:5])
    assert store.nbytes == 3 * 10 * 4
    store.close()
    assert not list(tmp_path.iterdir())


def test_kv_is_a_file_of_zeros(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10_000)
    pages = store.zeros("layers.0.keys", (4, 2, 16, 8), torch.float32)
    assert not pages.any()
    pages[2, 1, 3] = 1.0
    on_disk = torch.from_file(str(store.folder / "layers.0.keys.bin"), shared=True, size=1024, dtype=torch.float32)
    assert on_disk.view(4, 2, 16, 8)[2, 1, 3].tolist() == [1.0] * 8
    store.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"budget.disk_folder: .*No such file or directory; name a folder"):
        DiskStore(tmp_path / "missing", 1000)


def test_more_than_the_budget(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 100)
    with pytest.raises(DiskError, match=r"budget.disk: layers.0.up would fill 240 bytes of 100"):
        store.write("layers.0.up", {"weight": torch.zeros(60)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk_store, "save_file", refuse)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    said = rf"budget.disk_folder: .*{os.strerror(code)}; free some space"
    with pytest.raises(DiskError, match=said):
        DiskStore(tmp_path, 10_000).write("layers.0.up", {"weight": torch.zeros(6)})
    with pytest.raises(DiskError, match=said):
        DiskStore(tmp_path, 10_000).zeros("layers.0.keys", (4,), torch.float32)
    assert not list(tmp_path.iterdir()), "something is left behind"


def test_a_file_that_was_cut_meanwhile(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10_000)
    store.write("layers.0.up", {"weight": torch.zeros(60)})
    path = store.folder / "layers.0.up.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DiskError, match="cannot be read"):
        store.read("layers.0.up")
