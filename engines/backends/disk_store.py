"""The disk tier: matrices in memory-mapped safetensors files, and KV in files that the system pages in and out.

Files are made for one run and gone with it. What a full or read-only disk refuses is said before anything is served.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class DiskError(ValueError):
    """The disk tier cannot be used; says what to change."""


class DiskStore:
    def __init__(self, parent: str | Path, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self.nbytes = 0
        self._readers: dict[str, Any] = {}
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="harness-disk-", dir=parent))
        except OSError as error:
            reason = f"{error.strerror}; name a folder that can be written"
            raise DiskError(f"budget.disk_folder: {parent}: {reason}") from error

    def write(self, name: str, tensors: dict[str, Tensor]) -> None:
        self._take(name, sum(tensor.nbytes for tensor in tensors.values()))
        path = self._path(name)
        try:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        except (OSError, SafetensorError) as error:
            raise self._refused(error) from error

    def read(self, name: str) -> dict[str, Tensor]:
        """Mapped, not copied: bytes come from the disk when they are touched."""
        if name not in self._readers:
            try:
                self._readers[name] = safe_open(self._path(name), framework="pt")
            except (SafetensorError, OSError) as error:
                raise DiskError(f"{self._path(name)} cannot be read ({error}): it was changed while in use") from error
        reader = self._readers[name]
        return {key: reader.get_tensor(key) for key in reader.keys()}  # noqa: SIM118 - it is no mapping

    def zeros(self, name: str, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor whose memory is a file: holes until they are written."""
        count = torch.Size(size).numel()
        self._take(name, count * dtype.itemsize)
        path = self.folder / f"{name}.bin"
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, count * dtype.itemsize))
        except OSError as error:
            raise self._refused(error) from error
        return torch.from_file(str(path), shared=True, size=count, dtype=dtype).view(size)

    def close(self) -> None:
        self._readers.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _refused(self, error: Exception) -> DiskError:
        self.close()
        return DiskError(f"budget.disk_folder: {self.folder}: {_reason(error)}; free some space or place less there")

    def _take(self, name: str, size: int) -> None:
        self.nbytes += size
        if self.nbytes > self._budget_bytes:
            self.close()
            raise DiskError(f"budget.disk: {name} would fill {self.nbytes} bytes of {self._budget_bytes}; raise it")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return "no space left on device" if str(errno.ENOSPC) in str(error) else str(error)
