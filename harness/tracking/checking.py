"""What a night's check says: one sentence per finding, each with its label, and the exit code that they come to.

The judgement of a series is judgement.py's, absent nights are attendance.py's. Here they are gathered, and what
is the same for several metrics of a cell is said once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date

from harness.errors import ENVIRONMENT_EXIT_CODE
from harness.tracking.attendance import missing
from harness.tracking.judgement import judge
from harness.tracking.loading import NO_FIGURE, NO_RATIO, Tracked
from harness.tracking.outcome import Ack, State, Verdict
from results.history_rows import Ack as AckRow

REGRESSION_EXIT_CODE = 1
LOST = "lost"  # repeats that gave no figure
# In the order in which they are told.
ALARMS = (State.ALERT, State.OPEN)
GAPS = (State.UNFIT, State.NOISY, State.MISSING, LOST)
REMARKS = (State.CONFIRM, State.IMPROVEMENT, State.ACKNOWLEDGED)


@dataclass(frozen=True, slots=True)
class Finding:
    series: str
    label: str
    state: str
    night: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Check:
    """`states`: how many series are in each."""

    night: str
    findings: tuple[Finding, ...]
    states: Mapping[str, int]

    @property
    def exit_code(self) -> int:
        found = {finding.state for finding in self.findings}
        if found & set(ALARMS):
            return REGRESSION_EXIT_CODE
        return ENVIRONMENT_EXIT_CODE if found & set(GAPS) else 0

    def lines(self) -> list[str]:
        tally = ", ".join(f"{number} {state}" for state, number in self.states.items())
        return [*(finding.sentence for finding in self.findings), f"{sum(self.states.values())} series: {tally}"]

    def to_json(self) -> dict[str, object]:
        return {
            "night": self.night,
            "exit_code": self.exit_code,
            "findings": [asdict(finding) for finding in self.findings],
            "states": dict(self.states),
        }


def check(tracked: Sequence[Tracked], acks: Mapping[str, Sequence[Ack]], night: str) -> Check:
    """As of this night. `acks`: by the name of the series."""
    known = [each.until(night) for each in tracked]
    verdicts = {each.name: judge(each.series, acks.get(each.name, ())) for each in known}
    found = [
        *(finding for each in known for finding in _of_verdict(each, verdicts[each.name])),
        *_absences(known, acks, night),
        *_losses(known, night),
    ]
    rank = {state: number for number, state in enumerate((*ALARMS, *GAPS, *REMARKS))}
    findings = sorted(dict.fromkeys(found), key=lambda finding: rank[finding.state])
    states = Counter(str(verdict.state) for verdict in verdicts.values() if verdict is not None)
    return Check(night, tuple(findings), states)


def acks_by_series(rows: Sequence[AckRow]) -> dict[str, list[Ack]]:
    found: dict[str, list[Ack]] = {}
    for row in rows:
        found.setdefault(row.series, []).append(Ack(date.fromisoformat(row.night).toordinal(), row.reason))
    return found


def labelled(sentence: str, label: str) -> str:
    return sentence if f"[{label}]" in sentence else f"{sentence} [{label}]"


def _of_verdict(each: Tracked, verdict: Verdict | None) -> Iterator[Finding]:
    """What was told and is still open is told on nights that say nothing by themselves, too."""
    if verdict is None:
        return
    told = (*ALARMS, *GAPS, *REMARKS)
    if verdict.open and verdict.state not in ALARMS:
        for change in verdict.open:
            yield _finding(
                each, State.OPEN, verdict.ordinal, f"still open, not acknowledged: {change.sentence(each.series)}"
            )
    if verdict.state in told:
        yield (
            _unfit(each, verdict)
            if verdict.state is State.UNFIT
            else _finding(each, verdict.state, verdict.ordinal, verdict.sentence)
        )


def _unfit(each: Tracked, verdict: Verdict) -> Finding:
    """Once for a testbed, where the reason is the machine's and not a series' own."""
    night = each.series.nights[-1]
    if night.fit:
        return _finding(each, State.UNFIT, verdict.ordinal, verdict.sentence)
    sentence = f"{night.day} on testbed {each.key.testbed} is not judged: {night.unfit_reason}"
    return Finding("", each.label, State.UNFIT, night.day, labelled(sentence, each.label))


def _absences(known: Sequence[Tracked], acks: Mapping[str, Sequence[Ack]], night: str) -> Iterator[Finding]:
    today, siblings, told = date.fromisoformat(night).toordinal(), [each.series for each in known], set()
    for each in known:
        if each.key in told or _goes_on(each, known):
            continue
        verdict = missing(each.series, today, siblings, acks.get(each.name, ()))
        if verdict is not None:
            told.add(each.key)
            yield _finding(each, State.MISSING, today, verdict.sentence)


def _goes_on(each: Tracked, known: Sequence[Tracked]) -> bool:
    """Under another setup: the experiment was changed, and what it was before is not awaited any more."""
    return any(
        other.key != each.key
        and (other.series.cell, other.metric_key) == (each.series.cell, each.metric_key)
        and other.series.nights
        and each.series.nights
        and other.series.nights[-1].ordinal > each.series.nights[-1].ordinal
        for other in known
    )


def _losses(known: Sequence[Tracked], night: str) -> Iterator[Finding]:
    """Of this night. A failed cell has no metric at all: that is said once, and not for each."""
    for each in known:
        by_reason: dict[str, list[int]] = {}
        for lost in each.lost:
            if lost.night == night:
                by_reason.setdefault(lost.reason, []).append(lost.repeat)
        for reason, repeats in by_reason.items():
            who = each.series if reason in (NO_FIGURE, NO_RATIO) else each.series.cell
            which = f"repeat {repeats[0]}" if len(repeats) == 1 else f"repeats {', '.join(map(str, repeats))}"
            sentence = labelled(f"{who}: {which} of {night} gave no figure: {reason}", each.label)
            yield Finding(each.name if who is each.series else "", each.label, LOST, night, sentence)


def _finding(each: Tracked, state: State, ordinal: int, sentence: str) -> Finding:
    day = date.fromordinal(ordinal).isoformat()
    return Finding(each.name, each.label, state, day, labelled(sentence, each.label))
