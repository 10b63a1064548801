"""The run folder on disk: who lies where, and the rule that a cell is complete when its `summary.json` exists.

Everything that writes into a run folder comes through here. Questions about a finished run are `query`'s.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from results.errors import ResultsError
from results.files import (
    read_json,
    remove_temporaries,
    temporary_beside,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from results.readers import iter_requests, iter_steps, read_requests, read_samples, read_steps
from results.schema import MANIFEST_FILE, SUMMARY_FILE, CellSummary, Manifest, RunSummary
from results.writers import RequestWriter, SampleWriter, StepWriter

__all__ = [
    "RequestWriter",
    "RunFolder",
    "SampleWriter",
    "StepWriter",
    "iter_requests",
    "iter_steps",
    "read_json",
    "read_requests",
    "read_samples",
    "read_steps",
    "write_bytes",
    "write_json",
    "write_text",
]

CELLS_FOLDER = "cells"

_LONGEST_NAME = 150


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run. Creating never touches an existing run; opening wants a manifest."""

    path: Path

    @classmethod
    def create(cls, out_dir: Path, name: str, at: datetime | None = None) -> RunFolder:
        """Makes `<out_dir>/<name>-<utc stamp>`, numbered when two runs start within a second."""
        stamp = (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        wanted = f"{_file_name(name)}-{stamp}"
        number = 1
        while True:
            path = out_dir / (wanted if number == 1 else f"{wanted}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not path.is_dir():
                    raise ResultsError(f"{path}: exists and is not a folder: choose another --out") from None
                number += 1
                continue
            try:
                (path / CELLS_FOLDER).mkdir()
            except OSError:
                path.rmdir()
                raise
            return cls(path)

    def require_writable(self) -> None:
        probe = temporary_beside(self.path / MANIFEST_FILE)
        with writing(self.path):
            probe.touch()
            probe.unlink()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Nobody else runs cells in this folder meanwhile; the system lets go of the claim of a process that died."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(f"{self.path}: another process is running cells in it: wait for it, or end it") from None
        except OSError:  # a file system without locks: then nobody can tell
            pass

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        if not path.is_dir():
            raise ResultsError(f"{path}: no such run folder")
        if not (path / MANIFEST_FILE).is_file():
            raise ResultsError(f"{path}: not a run folder: it has no {MANIFEST_FILE}")
        return cls(path)

    @property
    def manifest(self) -> Manifest:
        path = self.path / MANIFEST_FILE
        return Manifest.from_json(read_json(path), str(path))

    def write_manifest(self, manifest: Manifest) -> None:
        write_json(self.path / MANIFEST_FILE, manifest.to_json())

    def cell_path(self, cell_id: str) -> Path:
        """Where the cell's files lie, whether or not they exist yet."""
        if not cell_id or cell_id.startswith(".") or re.search(r"[/\\\0]", cell_id):
            raise ResultsError(f"cell id {cell_id!r} cannot name a folder: use no slash and no leading dot")
        return self.path / CELLS_FOLDER / cell_id

    def cell_dir(self, cell_id: str) -> Path:
        """The cell's folder, made when missing."""
        path = self.cell_path(cell_id)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def cell_ids(self) -> list[str]:
        """Cells that have a folder, complete or not, in alphabetical order."""
        folder = self.path / CELLS_FOLDER
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def is_complete(self, cell_id: str) -> bool:
        return (self.cell_path(cell_id) / SUMMARY_FILE).is_file()

    def clear_incomplete(self, cell_id: str) -> None:
        """Removes what a dead attempt left, so that the next one starts clean. A complete cell is never removed."""
        if self.is_complete(cell_id):
            raise ResultsError(f"{self.cell_path(cell_id)}: the cell is complete: it is not run again")
        shutil.rmtree(self.cell_path(cell_id), ignore_errors=True)

    def remove_temporaries(self, cell_id: str) -> None:
        remove_temporaries(self.cell_path(cell_id))

    def write_cell_summary(self, summary: CellSummary) -> None:
        """The cell's last file: from here on it counts as complete."""
        write_json(self.cell_dir(summary.cell_id) / SUMMARY_FILE, summary.to_json())

    def read_cell_summary(self, cell_id: str) -> CellSummary:
        path = self.cell_path(cell_id) / SUMMARY_FILE
        return CellSummary.from_json(read_json(path), str(path))

    def gather(self, verdicts: Sequence[str] = ()) -> RunSummary:
        """The complete cells, in the planned order where there is a plan. One that cannot be read hides no other."""
        planned = {cell_id: index for index, cell_id in enumerate(self.manifest.cells_planned)}
        complete = [cell_id for cell_id in self.cell_ids() if self.is_complete(cell_id)]
        complete.sort(key=lambda cell_id: (planned.get(cell_id, len(planned)), cell_id))
        cells = []
        for cell_id in complete:
            with suppress(ResultsError):
                cells.append(self.read_cell_summary(cell_id))
        return RunSummary(tuple(cells), tuple(verdicts))

    def write_run_summary(self, verdicts: Sequence[str] = ()) -> RunSummary:
        summary = self.gather(verdicts)
        write_json(self.path / SUMMARY_FILE, summary.to_json())
        return summary

    def read_run_summary(self) -> RunSummary:
        path = self.path / SUMMARY_FILE
        return RunSummary.from_json(read_json(path), str(path))


def _file_name(name: str) -> str:
    """An experiment's name reduced to what is harmless in a path, a shell and a URL."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")
    return safe[:_LONGEST_NAME] or "run"
