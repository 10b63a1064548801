"""Why a series became slower: tonight's run beside the last one from before the change, where its folder is still here.

What the causes are is results/waterfall.py's; that there was a change is the judgement's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from results.history_rows import Role, RunHead
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
    found: dict[tuple[str, str, str, str], Reason] = {}
    for each in tracked:
        place = (each.key.engine, each.key.workload, each.label, each.key.setup)
        if place not in found and (reason := _reason(each, acks.get(each.name, ()), night, runs)) is not None:
            found[place] = reason
    return list(found.values())


def _reason(each: Tracked, acks: Sequence[Ack], night: str, runs: Path) -> Reason | None:
    verdict = judge(each.series, acks)
    if verdict is None or not verdict.open:
        return None
    began = day(min(change.since for change in verdict.open))
    earlier = [head for when in sorted(each.runs) if when < began for head in each.runs[when]]
    before, after = _folder(earlier, runs), _folder(each.runs.get(night, ()), runs)
    if before is None or after is None:
        return None
    try:
        compared = compare_runs(before, after, across=True, why=True)
    except (ConfigError, ResultsError):  # records that are no more what they were
        return None
    place = (each.key.engine, each.key.workload)
    why = next((why for why in compared.why if (why.engine, why.workload) == place), None)
    return None if why is None else Reason(each.label, before, after, why)


def _folder(heads: Sequence[RunHead], runs: Path) -> Path | None:
    """Of the last of these runs that is here; reruns and controls are of some cells only."""
    for head in reversed([head for head in heads if head.role is Role.NIGHT]):
        for path in sorted(runs.glob(f"*/{MANIFEST_FILE}"), reverse=True):
            if _is_of(path, head):
                return path.parent
    return None


def _is_of(path: Path, head: RunHead) -> bool:
    try:
        return key_of(Manifest.from_json(read_json(path), str(path))) == head.key
    except (OSError, ResultsError):
        return False
