"""Whether a bundle is what it says: every hash, every file, and then every number once more from the records.

Hashes find a changed byte. Whoever changes a number and mends the hashes is found by the recount, in a simulated run by
the simulation, too. Nobody is found who forges a whole measurement: against that there is the id, quoted elsewhere.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.bundle import BUNDLE_FILE, ID_LETTERS, REPORT_FILE, made_by
from harness.checksums import CHECKSUMS_FILE, parsed, sha256_of
from harness.code_version import code_version
from harness.container import NotABundleError, Opened, files_below, first_stray_byte, path_problem, unpacked
from harness.differences import NOTHING, Difference, Ledger
from harness.errors import ConfigError
from harness.interrupts import Interrupts
from harness.plan import LABELS, CellSpec
from harness.swelling import require_modest
from results.files import read_json
from results.schema import MANIFEST_FILE, SUMMARY_FILE
from results.store import RunFolder

_ID = re.compile(r"[0-9a-f]{16,64}")
_ID_IN_NAME = re.compile(rf"-([0-9a-f]{{{ID_LETTERS}}})\.zip")


@dataclass(frozen=True, slots=True)
class Verification:
    """`other_code`: what of the code that made the bundle is another here, as (theirs, ours)."""

    bundle: Path
    id: str
    files: int
    recomputed: int
    simulated_again: int  # cells
    other_code: Mapping[str, tuple[str, str]]
    differences: tuple[Difference, ...]
    as_recorded: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return 1 if self.differences else 0

    def to_json(self) -> dict[str, object]:
        return {
            "bundle": str(self.bundle),
            "verified": not self.differences,
            "id": self.id,
            "files": self.files,
            "recomputed": self.recomputed,
            "simulated_again": self.simulated_again,
            "other_code": {name: list(pair) for name, pair in self.other_code.items()},
            "differences": [asdict(each) for each in self.differences],
            "as_recorded": list(self.as_recorded),
        }


def verify(bundle: Path, *, quoted_id: str = "", simulate: bool = True) -> Verification:
    """A bundle's file, or the folder that it was unpacked into. NotABundleError where it is neither."""
    if quoted_id and not _ID.fullmatch(quoted_id):
        raise ConfigError(f"--id {quoted_id}: expected 16 to 64 hexadecimal digits, as `harness bundle` prints them")
    ledger = Ledger()
    with _opened(bundle) as opened:
        files = dict(files_below(opened.top))
        code = _code_of(files, opened.damaged, bundle)
        found_id = _check_files(files, opened, ledger)
        if bundle.is_file() and not opened.damaged and (at := first_stray_byte(bundle, opened)) is not None:
            ledger.differs(bundle.name, f"byte {at} of the container", "what packing its files gives", "something else")
        _check_id(bundle, found_id, quoted_id, ledger)
        ours = code_version()
        other = {name: (was, ours.get(name, NOTHING)) for name, was in code.items() if was != ours.get(name)}
        other |= {} if code else {"code_sha256": ("unknown", ours["code_sha256"])}
        again = 0 if ledger.differences else _recompute(opened.top, not other, simulate, ledger)
    recorded = tuple(f"{what}{_times(n)}: {why}" for (what, why), n in ledger.as_recorded.items())
    return Verification(
        bundle, found_id, len(files), ledger.recomputed, again, other, tuple(ledger.differences), recorded
    )


def _times(count: int) -> str:
    return "" if count == 1 else f" ({count} cells)"


# --- the files --------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(bundle: Path) -> Iterator[Opened]:
    if bundle.is_dir():
        yield Opened(bundle, {})
        return
    if not bundle.is_file():
        raise NotABundleError(f"{bundle}: no such file or folder")
    with tempfile.TemporaryDirectory(prefix="harness-verify-") as folder:
        yield unpacked(bundle, Path(folder))


def _code_of(files: Mapping[str, Path], damaged: Mapping[str, str], bundle: Path) -> dict[str, str]:
    """Which code made it; nothing where that cannot be read, which the hashes then say."""
    for needed in (CHECKSUMS_FILE, BUNDLE_FILE):
        if needed not in files and needed not in damaged:
            others = ((files.keys() | damaged.keys()) & {CHECKSUMS_FILE, BUNDLE_FILE, MANIFEST_FILE}) - {MANIFEST_FILE}
            if not others:
                raise NotABundleError(f"{bundle}: not a bundle: it has no {needed}; `harness bundle RUN` makes one")
            return {}
    if BUNDLE_FILE in damaged or CHECKSUMS_FILE in damaged:
        return {}
    sums, _ = parsed(files[CHECKSUMS_FILE].read_bytes())
    if sums.get(BUNDLE_FILE) != sha256_of(files[BUNDLE_FILE]):
        return {}
    try:
        return made_by(json.loads(files[BUNDLE_FILE].read_bytes()), str(bundle))
    except (ValueError, RecursionError) as error:
        raise NotABundleError(f"{bundle}: not a bundle: {BUNDLE_FILE}: {error}") from None


def _check_files(files: Mapping[str, Path], opened: Opened, ledger: Ledger) -> str:
    """Each against the list, and the list against each; gives the id."""
    for path, problem in opened.damaged.items():
        ledger.differs(path, "in the container", "as it was packed", problem)
    if CHECKSUMS_FILE not in files:
        if CHECKSUMS_FILE not in opened.damaged:
            ledger.differs(CHECKSUMS_FILE, "file", "present", "missing")
        return ""
    sums, problem = parsed(files[CHECKSUMS_FILE].read_bytes())
    if problem:
        ledger.differs(CHECKSUMS_FILE, "form", "a hash and a path on each line, sorted", problem)
    for path, expected in sums.items():
        if path in files and (found := sha256_of(files[path])) != expected:
            ledger.differs(path, "SHA-256", expected, found)
        elif path not in files and path not in opened.damaged:
            ledger.differs(path, "file", "present", "missing")
    for path in files.keys() - sums.keys() - {CHECKSUMS_FILE}:
        ledger.differs(path, "file", NOTHING, path_problem(path) or "a file that is not listed")
    for needed in (BUNDLE_FILE, MANIFEST_FILE, SUMMARY_FILE, REPORT_FILE):
        if not problem and needed not in sums:
            ledger.differs(CHECKSUMS_FILE, "list", needed, NOTHING)
    return sha256_of(files[CHECKSUMS_FILE])


def _check_id(bundle: Path, found: str, quoted: str, ledger: Ledger) -> None:
    if quoted and not found.startswith(quoted):
        ledger.differs(bundle.name, "id", quoted, found or NOTHING)
    named = _ID_IN_NAME.search(bundle.name)
    if named and not found.startswith(named[1]):
        ledger.differs(bundle.name, "id in the file's name", named[1], found or NOTHING)


# --- the numbers ------------------------------------------------------------------------------------------------------


def _recompute(top: Path, same_code: bool, simulate: bool, ledger: Ledger) -> int:
    """How many cells were simulated again."""
    from harness.recount import check_cell
    from harness.report_again import check_report

    require_modest(top)
    folder, again = RunFolder.open(top), 0
    with Interrupts() as interrupts:
        for cell_id in folder.cell_ids():
            if interrupts.count:
                raise KeyboardInterrupt
            if not folder.is_complete(cell_id):
                ledger.take("cells without a summary", "they did not finish, and show nothing")
                continue
            spec = _guarded(f"cells/{cell_id}", ledger, check_cell, folder, cell_id, ledger)
            if spec is not None:
                again += _again(spec, folder, same_code, simulate, ledger, interrupts)
    _guarded(SUMMARY_FILE, ledger, _check_summary, folder, ledger)
    _guarded(REPORT_FILE, ledger, check_report, top, same_code, ledger)
    return again


def _guarded(file: str, ledger: Ledger, check: Callable[..., Any], *arguments: Any) -> Any:
    """Records that somebody made up may fail in any way; that is a difference, and hides no other."""
    try:
        return check(*arguments)
    except Exception as error:
        said = " ".join(str(error).split())
        ledger.differs(file, "recomputing it", "records that can be read", f"{type(error).__name__}: {said}")
        return None


def _again(
    spec: CellSpec, folder: RunFolder, same_code: bool, simulate: bool, ledger: Ledger, interrupts: Interrupts
) -> bool:
    from engines.registry import is_policy
    from harness.simulated_again import simulate_again

    why = "only a simulation can be made again"
    if spec.backend == "sim" and is_policy(spec.engine.kind):
        if same_code and simulate:
            cell_dir = folder.cell_path(spec.cell_id)
            return bool(_guarded(f"cells/{spec.cell_id}", ledger, simulate_again, spec, cell_dir, ledger, interrupts))
        why = "not simulated again: " + ("asked for" if same_code else "this is other code")
    ledger.take("operators, draws, parity and what the engine says of itself", why)
    return False


def _label_of(backend: str) -> str:
    return next((label for known, label in LABELS.items() if known == backend), NOTHING)


def _check_summary(folder: RunFolder, ledger: Ledger) -> None:
    from harness.verdicts import verdicts

    manifest = folder.manifest
    planned = manifest.cells_planned
    ledger.compare(MANIFEST_FILE, "label", _label_of(manifest.backend), str(manifest.label))
    gathered = folder.gather()
    drawn = verdicts([cell.to_json() for cell in gathered.cells])
    expected = folder.gather(drawn).to_json()
    found = read_json(folder.path / SUMMARY_FILE)
    is_whole = {cell.cell_id for cell in gathered.cells} == set(planned)
    if not is_whole and isinstance(found, dict) and not found.get("verdicts"):
        expected["verdicts"] = []  # it was interrupted, and has drawn none yet
    ledger.compare(SUMMARY_FILE, "of the cells", expected, found)
