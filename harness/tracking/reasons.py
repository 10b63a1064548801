"""Why a series became slower: tonight's run beside the last one from before the change, where its folder is still here.

What the causes are is results/waterfall.py's; that there was a change is the judgement's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.compare import compare_runs
from harness.errors import ConfigError
from harness.tracking.judgement import judge
from harness.tracking.loading import Tracked
from harness.tracking.outcome import Ack
from harness.tracking.recording import key_of
from harness.tracking.series import day
from harness.why import Why
from results.errors import ResultsError
from results.history_rows import Role, RunHead, SeriesKey
from results.schema import MANIFEST_FILE, Manifest
from results.store import read_json


@dataclass(frozen=True, slots=True)
class Reason:
    label: str
    before: Path
    after: Path
    why: Why

    def lines(self) -> list[str]:
        return [*self.why.lines(self.label), f"  between {self.before} and {self.after}"]


def reasons(tracked: Sequence[Tracked], acks: Mapping[str, Sequence[Ack]], night: str, runs: Path) -> list[Reason]:
    """One for each engine and workload with a regression that is open; `tracked` as of the night."""
    began: dict[SeriesKey, tuple[Tracked, str]] = {}
    for each in tracked:
        verdict = judge(each.series, acks.get(each.name, ()))
        if verdict is not None and verdict.open:
            began.setdefault(each.key, (each, day(min(change.since for change in verdict.open))))
    folders = _folders(runs) if began else {}
    compared: dict[tuple[Path, Path], dict[tuple[str, str], Why]] = {}
    found = []
    for key, (each, since) in began.items():
        earlier = [head for when in sorted(each.runs) if when < since for head in each.runs[when]]
        before, after = _last(earlier, folders), _last(each.runs.get(night, ()), folders)
        if before is None or after is None:
            continue
        if (before, after) not in compared:
            compared[before, after] = _whys(before, after)
        why = compared[before, after].get((key.engine, key.workload))
        if why is not None:
            found.append(Reason(each.label, before, after, why))
    return found


def _whys(before: Path, after: Path) -> dict[tuple[str, str], Why]:
    """By engine and workload; nothing of runs whose records are no more what they were."""
    try:
        compared = compare_runs(before, after, across=True, why=True)
    except (ConfigError, ResultsError):
        return {}
    return {(why.engine, why.workload): why for why in compared.why}


def _last(heads: Sequence[RunHead], folders: Mapping[str, Path]) -> Path | None:
    """Of these runs the last that is here; reruns and controls are of some cells only."""
    here = [folders[head.key] for head in heads if head.role is Role.NIGHT and head.key in folders]
    return here[-1] if here else None


def _folders(runs: Path) -> dict[str, Path]:
    """By the key that the history knows a run by."""
    found = {}
    for path in runs.glob(f"*/{MANIFEST_FILE}"):
        with suppress(OSError, ResultsError):
            found[key_of(Manifest.from_json(read_json(path), str(path)))] = path.parent
    return found
