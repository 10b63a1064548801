"""A night from end to end: is the machine fit, run, control, add, judge, run again what looks changed, judge again.

Every step leaves what it made: a night that is cut short has its runs in the history, and the same command goes on with
another run of the same night, whose repeats count as well. Pages are publishing.py's, what is printed the command's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.checks import require_runnable
from harness.config import load_experiment
from harness.errors import ENVIRONMENT_EXIT_CODE
from harness.experiment import Experiment
from harness.opening import manifest_of
from harness.plan import CellSpec, ResolvedBackend, expand, resolve_backend
from harness.progress import Watcher
from harness.runner import INTERRUPTED_EXIT_CODE, PARTIAL_EXIT_CODE, RunOutcome, run_experiment
from harness.tracking.checking import REGRESSION_EXIT_CODE, Check, acks_by_series, check
from harness.tracking.fitness import waited_for
from harness.tracking.identity import testbed
from harness.tracking.judgement import judge
from harness.tracking.loading import Tracked, load_tracked
from harness.tracking.outcome import Ack
from harness.tracking.reasons import Reason, reasons
from harness.tracking.recording import recorded
from results.history import History
from results.history_rows import Role, SeriesKey, Skipped
from results.schema import Label, Status

Say = Callable[[str], None]
Wanted = frozenset[tuple[str, str]]  # engine and workload
EVERY: Wanted = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    configs: tuple[str, ...]
    db: Path
    out: Path
    night: str  # ISO date
    patience_s: float  # for a busy machine to become idle
    force: bool = False  # run on an unfit machine, too: kept, and not judged
    sets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One experiment of the night, found runnable."""

    config: str
    experiment: Experiment
    backend: ResolvedBackend
    label: str
    cells: tuple[CellSpec, ...]

    @property
    def baseline(self) -> Wanted:
        first = self.experiment.engines[0].name
        return frozenset((cell.engine.name, cell.workload.name) for cell in self.cells if cell.engine.name == first)


@dataclass(frozen=True, slots=True)
class Made:
    """A run of the night. `failed`: its cells that failed, each with the reason."""

    part: Part
    role: Role
    outcome: RunOutcome
    series: frozenset[SeriesKey]

    @property
    def failed(self) -> list[str]:
        cells = self.outcome.summary.cells
        return [
            f"{cell.cell_id}: {(cell.error or 'no reason').splitlines()[0]} [{cell.label}]"
            for cell in cells
            if cell.status is Status.FAILED
        ]


@dataclass(frozen=True, slots=True)
class Turned:
    """An experiment that was not run, since the machine was unfit for it."""

    config: str
    reason: str
    label: str

    def __str__(self) -> str:
        return f"{self.config} is not run: {self.reason} [{self.label}]"


@dataclass(slots=True)
class Night:
    """What was done, as far as it went."""

    night: str
    check: Check
    made: list[Made] = field(default_factory=list)
    turned: list[Turned] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)  # of regressions, where there are records from before
    interrupted: bool = False

    @property
    def failed(self) -> list[str]:
        return [line for made in self.made for line in made.failed]

    @property
    def exit_code(self) -> int:
        """A regression first, since it was confirmed; then what was lost."""
        if self.interrupted:
            return INTERRUPTED_EXIT_CODE
        if self.check.exit_code == REGRESSION_EXIT_CODE:
            return REGRESSION_EXIT_CODE
        if self.failed or any(made.outcome.stopped for made in self.made):
            return PARTIAL_EXIT_CODE
        return ENVIRONMENT_EXIT_CODE if self.turned else self.check.exit_code


def run_night(asked: Asked, watcher: Callable[[], Watcher], say: Say) -> Night:
    """Every experiment is found runnable, and the history usable, before the first is run."""
    parts = [_part(config, asked.sets) for config in asked.configs]
    night = Night(asked.night, _judged(asked, create=True))
    for part in parts:
        for role, wanted in ((Role.NIGHT, EVERY), (Role.CONTROL, part.baseline)):
            if not _do(asked, night, part, role, wanted, watcher, say):
                break
        if night.interrupted:
            break
    for part, wanted in [] if night.interrupted else _doubtful(asked, night):
        say(f"{part.config}: looks changed, run once more: {', '.join(' on '.join(pair) for pair in sorted(wanted))}")
        _do(asked, night, part, Role.CONFIRMATION, wanted, watcher, say)
        if night.interrupted:
            break
    night.check = _judged(asked)
    night.reasons = reasons(*_known(asked), asked.night, asked.out)
    return night


def _part(config: str, sets: Sequence[str]) -> Part:
    experiment = load_experiment(config, sets)
    backend, label, _ = resolve_backend(experiment)
    cells = expand(experiment, backend)
    require_runnable(cells, backend)
    return Part(config, experiment, backend, label, tuple(cells))


def _do(
    asked: Asked, night: Night, part: Part, role: Role, wanted: Wanted, watcher: Callable[[], Watcher], say: Say
) -> bool:
    """One run, if the machine is fit; False where the experiment is not to go on tonight."""
    unfit = waited_for(part.backend, asked.patience_s)
    if unfit and not asked.force:
        turned = Turned(part.config, unfit, part.label)
        night.turned.append(turned)
        say(str(turned) if role is Role.NIGHT else f"{turned} ({role})")
        if role is Role.NIGHT:
            _skip(asked, part, unfit)
        return False
    outcome = run_experiment(part.experiment, asked.out, watcher(), command=_command(asked, part, role), only=wanted)
    for warning in outcome.warnings:
        say(f"warning: {warning}")
    if outcome.interrupted:
        night.interrupted = True  # half of it would look like all of it
        return False
    night.made.append(Made(part, role, outcome, _added(asked, outcome.run_dir, role, unfit)))
    return not outcome.stopped


def _command(asked: Asked, part: Part, role: Role) -> str:
    """What runs the same cells, and after a # what they were run for."""
    sets = "".join(f" --set '{each}'" for each in asked.sets)
    return f"harness run --config {part.config}{sets}  # {role} of {asked.night}"


def _added(asked: Asked, run_dir: Path, role: Role, unfit: str) -> frozenset[SeriesKey]:
    row = recorded(run_dir, night=asked.night, role=role, unfit=unfit)
    with History.opened(asked.db) as history:
        history.add(row)
    return frozenset(
        SeriesKey(cell.engine, cell.workload, cell.label, cell.testbed.digest, cell.setup.digest) for cell in row.cells
    )


def _skip(asked: Asked, part: Part, reason: str) -> None:
    """For the testbed that the experiment would have been run on: others, as simulations, go on."""
    manifest = manifest_of(part.experiment, part.cells, part.backend, part.label, "")
    with History.opened(asked.db) as history:
        history.skip(Skipped(asked.night, testbed(manifest, Label(part.label)).digest, reason))


def _judged(asked: Asked, *, create: bool = False) -> Check:
    return check(*_known(asked, create=create), asked.night)


def _known(asked: Asked, *, create: bool = False) -> tuple[list[Tracked], dict[str, list[Ack]]]:
    """Every series as of the night, and what was acknowledged."""
    with History.opened(asked.db, create=create) as history:
        return [each.until(asked.night) for each in load_tracked(history)], acks_by_series(history.acks())


def _doubtful(asked: Asked, night: Night) -> list[tuple[Part, Wanted]]:
    """By experiment, what the judgement wants to be run again."""
    tracked, acks = _known(asked)
    verdicts = [(each, judge(each.series, acks.get(each.name, ()))) for each in tracked]
    keys = {
        each.key
        for each, verdict in verdicts
        if verdict is not None and verdict.wants_rerun and each.series.nights[-1].day == asked.night
    }
    first = [made for made in night.made if made.role is Role.NIGHT]
    found = [(made.part, _named(made.series & keys)) for made in first]
    return [(part, wanted) for part, wanted in found if wanted]


def _named(keys: Collection[SeriesKey]) -> Wanted:
    return frozenset((key.engine, key.workload) for key in keys)
