"""What a history of nights is made of: runs with their cells, values of a series, acknowledgements.

Plain records. Where they are kept is `history`'s part; what makes two runs comparable is decided by who fills them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from results.roles import Role as Role
from results.schema import Label, Status


class Added(StrEnum):
    """What became of a run that was to be added."""

    NEW = "added"
    COMPLETED = "brought up to date"  # it had gone on since it was added
    KNOWN = "already there, nothing changed"


@dataclass(frozen=True, slots=True)
class Testbed:
    """What figures may be compared on. The digest is of the facts, and of nothing else."""

    digest: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a cell was asked for, without what does not decide its figures."""

    digest: str
    asked: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CellRow:
    """One cell. `reason` says why nothing may be concluded from it, and is empty where something may."""

    cell_id: str
    engine: str
    workload: str
    label: Label
    testbed: Testbed
    setup: Setup
    repeat: int
    status: Status
    reason: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Version:
    """Of the code that ran. What is not known is empty."""

    package: str = ""
    commit: str = ""
    commit_utc: str = ""
    changed: bool = False  # there were uncommitted changes

    def __str__(self) -> str:
        commit = f"{self.commit[:12]}{' with uncommitted changes' if self.changed else ''}" if self.commit else ""
        return ", ".join(word for word in (self.package, commit, self.commit_utc[:10]) if word) or "unknown version"


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. `key` is the same for every copy of it; `content` changes when its cells do.

    `unfit` says why its figures are no evidence of the code: the machine was busy, hot, or throttled.
    """

    key: str
    content: str
    night: str  # ISO date
    role: Role
    name: str
    created_utc: str
    backend: str
    version: Version
    unfit: str
    environment: Mapping[str, object]
    config: Mapping[str, object]
    source: str  # the folder it came from
    cells: tuple[CellRow, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """Figures that may be compared night by night. Another machine, label, setup, engine or workload is another one."""

    engine: str
    workload: str
    label: Label
    testbed: str
    setup: str


@dataclass(frozen=True, slots=True)
class Value:
    """What one cell of a series came to for one metric. None where it gave none, with the reason."""

    night: str
    role: Role
    run: str
    repeat: int
    value: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class RunHead:
    """A run without its cells."""

    key: str
    night: str
    role: Role
    name: str
    created_utc: str
    version: Version
    unfit: str
    environment: Mapping[str, object]
    config: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Ack:
    """A change that somebody knows the reason of: what comes after is judged by the level it has then."""

    series: str
    night: str
    reason: str
    made_utc: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A night on which a testbed was found unfit before anything was run."""

    night: str
    testbed: str
    reason: str
