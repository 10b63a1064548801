"""A run as one file that can be handed over: config, raw records, environment and report, with a hash of each.

What is in it is what the run folder has, `bundle.json` (which code made it) and `SHA256SUMS`, whose own hash is the
bundle's id. Unpacked, it is a run folder again. Not here: the container (container.py), and checking one (verify.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from harness.checksums import CHECKSUMS_FILE, rendered, sha256_of
from harness.code_version import code_version
from harness.container import NotABundleError, files_below, packed, path_problem
from harness.errors import ConfigError
from harness.keys_at_hand import refuse_secrets
from results.files import is_temporary
from results.schema import MANIFEST_FILE, SUMMARY_FILE
from results.store import CELLS_FOLDER, RunFolder

BUNDLE_FILE = "bundle.json"
REPORT_FILE = "report.html"
FORMAT = "hybrid-harness-bundle"
VERSION = 1
ID_LETTERS = 16  # of the id, in a file's name
_OF_A_RUN = frozenset({MANIFEST_FILE, SUMMARY_FILE, REPORT_FILE})
_MADE_ANEW = frozenset({BUNDLE_FILE, CHECKSUMS_FILE})


@dataclass(frozen=True, slots=True)
class Bundled:
    """`id`: the SHA-256 of SHA256SUMS. `left_out`: what lies in the folder and is no part of a run."""

    path: Path
    id: str
    files: int
    left_out: tuple[str, ...]


def make_bundle(run_dir: Path, out: Path | None = None) -> Bundled:
    """Writes the bundle of a run that nobody is writing to; equal folders and equal code give equal bytes."""
    folder = RunFolder.open(run_dir)
    with folder.claimed():
        kept, left_out = _chosen(run_dir)
        refuse_secrets(kept, folder.manifest.config)
        _require_own_report(run_dir)
        top = run_dir.resolve().name
        about = _about(top)
        sums = {path: sha256_of(source) for path, source in kept.items()}
        sums[BUNDLE_FILE] = hashlib.sha256(about).hexdigest()
        listed = rendered(sums)
        found = hashlib.sha256(listed).hexdigest()
        target = out or Path(f"{top}-{found[:ID_LETTERS]}.zip")
        if target.is_dir():
            raise ConfigError(f"--out {target}: is a folder; name a file")
        packed(top, {**kept, BUNDLE_FILE: about, CHECKSUMS_FILE: listed}, target)
    return Bundled(target, found, len(sums) + 1, left_out)


def made_by(data: object, source: str) -> dict[str, str]:
    """The code that made a bundle, from its bundle.json. NotABundleError where that is none we can read."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise NotABundleError(f"{source}: not a bundle: its {BUNDLE_FILE} does not say {FORMAT}")
    if data.get("version") != VERSION:
        raise NotABundleError(f"{source}: format {data.get('version')}, this harness reads {VERSION}: upgrade it")
    code = data.get("made_by")
    return {str(name): str(version) for name, version in code.items()} if isinstance(code, dict) else {}


def _about(run: str) -> bytes:
    about = {"format": FORMAT, "version": VERSION, "run": run, "made_by": code_version()}
    return (json.dumps(about, indent=2) + "\n").encode()


def _chosen(run_dir: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files of the run by their paths, and what else lies there: somebody's notes are not handed on unasked."""
    kept, left_out = {}, []
    for path, source in files_below(run_dir):
        is_of_the_run = path in _OF_A_RUN or path.startswith(f"{CELLS_FOLDER}/")
        if is_temporary(source) or path in _MADE_ANEW:
            continue
        if not is_of_the_run:
            left_out.append(path)
        elif problem := path_problem(f"{run_dir.resolve().name}/{path}"):
            raise ConfigError(f"{source}: its name {problem}: rename it")
        else:
            kept[path] = source
    return kept, tuple(left_out)


def _require_own_report(run_dir: Path) -> None:
    """Whoever checks the bundle makes the report again: it has to be the one that this code makes of this folder."""
    from reports.page import page_of

    report = run_dir / REPORT_FILE
    if not report.is_file() or report.read_bytes() != page_of(run_dir).encode("utf-8", errors="replace"):
        what = "is not what this code makes of the run" if report.is_file() else "is missing"
        raise ConfigError(f"{report}: {what}; `harness report {run_dir}` makes it")
