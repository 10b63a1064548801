"""What is said of a series tonight: a fold over its nights, so that every night is judged by what was known then.

No clock, no files: the same nights and acknowledgements always give the same verdicts, and nothing but them is stored.
The steps, in order: is the night fit, is enough known, was a change acknowledged, is there a significant change, and
does a rerun agree. Constants and why they hold: rules.py. Alarms about nights that are not there: attendance.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from harness.stats import FloatArray
from harness.tracking.candidates import Bar, Candidate, bar_over, find_candidate, is_beyond, to_change
from harness.tracking.memory import Memory, seen_of
from harness.tracking.noise import control_spread, middle
from harness.tracking.outcome import Ack, State, Verdict, percent
from harness.tracking.rules import DEFAULT, Rules
from harness.tracking.series import Night, Series, day

TAIL_METRIC = re.compile(r"_(p9\d|max)(_|$)|^max_stall_s")


def judge(series: Series, acks: Sequence[Ack] = (), rules: Rules = DEFAULT) -> Verdict | None:
    """Of the last night; None where there is no night yet."""
    verdicts = replay(series, acks, rules)
    return verdicts[-1] if verdicts else None


def replay(series: Series, acks: Sequence[Ack] = (), rules: Rules = DEFAULT) -> tuple[Verdict, ...]:
    """A verdict for every night, each by the nights up to it."""
    return tuple(verdict for _, verdict in _fold(series, acks, rules))


def levels(series: Series, acks: Sequence[Ack] = (), rules: Rules = DEFAULT) -> tuple[int, ...]:
    """The days on which the present levels began, as far as they are remembered; for plots."""
    memory = Memory()
    for memory, _ in _fold(series, acks, rules):  # noqa: B007
        pass
    return tuple(memory.seen[at].ordinal for at in memory.levels if at < len(memory.seen))


def _fold(series: Series, acks: Sequence[Ack], rules: Rules) -> Iterator[tuple[Memory, Verdict]]:
    memory = Memory()
    for night in series.nights:
        memory, verdict = step(memory, night, series, acks, rules)
        yield memory, verdict


def step(
    memory: Memory, night: Night, series: Series, acks: Sequence[Ack] = (), rules: Rules = DEFAULT
) -> tuple[Memory, Verdict]:
    """One night more. Where the verdict wants a rerun, call again from the same memory with the night and its rerun."""
    why_unfit = (
        night.unfit_reason or "the machine was not fit" if not night.fit else _control_apart(memory, night, rules)
    )
    if why_unfit:
        said = f"{series}: {night.day} is not judged: {why_unfit}"
        return replace(memory, last_ordinal=night.ordinal), Verdict(night.ordinal, State.UNFIT, said, open=memory.open)
    ack = _acknowledged_on(memory, night, acks)
    before, memory = memory, memory.with_night(night, rules)
    why_observed = observe_only(series, rules)
    if why_observed:
        return memory, Verdict(
            night.ordinal, State.OBSERVED, f"{series}: {_figure(night)}, observed only: {why_observed}"
        )
    if ack is not None and before.seen:
        return _acknowledge(memory, ack, series, night, rules)
    return _judge(memory, night, series, acks, rules)


def observe_only(series: Series, rules: Rules = DEFAULT) -> str:
    """Why the series is never alerted; empty where it may be."""
    if TAIL_METRIC.search(series.metric):
        return "the tail of a distribution rests on a few requests"
    if series.requests is not None and series.requests < rules.least_requests:
        return f"{series.requests} requests a cell, {rules.least_requests} are needed"
    return ""


def _judge(memory: Memory, night: Night, series: Series, acks: Sequence[Ack], rules: Rules) -> tuple[Memory, Verdict]:
    known, in_level = len(memory.seen), len(memory.seen) - memory.start
    if known <= rules.learning_nights or in_level <= rules.level_nights:
        return memory, _learning(memory, night, series, rules)
    figures = memory.aligned()
    found = find_candidate(memory, figures, rules)
    if found is not None:
        agrees = _rerun_agrees(memory, found)
        if agrees:
            return _tell(memory, found, series, night, acks, rules)
        return memory, _unconfirmed(memory, night, series, found.level, found.towards, found.bar, agrees)
    bar = bar_over(figures[:-1], memory, rules)
    level = middle(figures[memory.start : -1])
    towards = math.copysign(1.0, float(figures[-1]) - level)
    if is_beyond(float(figures[-1]), level, towards, bar, share=1.0):
        rerun = memory.seen[-1].rerun
        agrees = None if rerun is None else is_beyond(rerun, level, towards, bar)
        return memory, _unconfirmed(memory, night, series, level, towards, bar, agrees)
    return _nothing_new(memory, night, series, figures, rules)


# --- gates ------------------------------------------------------------------------------------------------------------


def _control_apart(memory: Memory, night: Night, rules: Rules) -> str:
    """The same code must come out alike; a night on which it does not says nothing about other code."""
    if not night.control:
        return ""
    apart = math.log(median(night.control))
    limit = max(math.log1p(rules.min_effect), rules.control_factor * control_spread(memory.controls))
    if len(memory.seen) < rules.learning_nights or abs(apart) <= limit:
        return ""
    return f"the same code came out {percent(apart)} apart from itself"


def _acknowledged_on(memory: Memory, night: Night, acks: Sequence[Ack]) -> Ack | None:
    """The acknowledgement whose level begins tonight: the first fit night from its day on."""
    last = memory.seen[-1].ordinal if memory.seen else -1
    return next((ack for ack in acks if last < ack.ordinal <= night.ordinal), None)


def _acknowledge(memory: Memory, ack: Ack, series: Series, night: Night, rules: Rules) -> tuple[Memory, Verdict]:
    still = tuple(each for each in memory.open if abs(each.ordinal - ack.ordinal) > rules.ack_reach_days)
    memory = replace(memory.with_level(len(memory.seen) - 1), open=still)
    said = f"{series}: a new level since {day(ack.ordinal)}, acknowledged: {ack.reason}"
    return memory, Verdict(night.ordinal, State.ACKNOWLEDGED, said, open=still)


def _learning(memory: Memory, night: Night, series: Series, rules: Rules) -> Verdict:
    known, in_level = len(memory.seen), len(memory.seen) - memory.start
    if known <= rules.learning_nights:
        said = f"{series}: learning, night {known} of {rules.learning_nights} on {series.testbed or 'this testbed'}"
        return Verdict(night.ordinal, State.LEARNING, said, open=memory.open)
    since = day(memory.seen[memory.start].ordinal)
    said = f"{series}: learning the level that began on {since}, night {in_level} of {rules.level_nights}"
    return Verdict(night.ordinal, State.OPEN if memory.open else State.LEARNING, said, open=memory.open)


# --- changes ----------------------------------------------------------------------------------------------------------


def _rerun_agrees(memory: Memory, found: Candidate) -> bool | None:
    """Tonight's rerun decides if there is one, else any made since the change; None: none that agrees, ask for one."""
    tonight = memory.seen[-1].rerun
    if tonight is not None:
        return is_beyond(tonight, found.level, found.towards, found.bar)
    earlier = [each.rerun for each in memory.seen[found.at :] if each.rerun is not None]
    return True if any(is_beyond(each, found.level, found.towards, found.bar) for each in earlier) else None


def _unconfirmed(
    memory: Memory, night: Night, series: Series, level: float, towards: float, bar: Bar, agrees: bool | None
) -> Verdict:
    side = "higher" if towards > 0 else "lower"
    start = f"{series}: {night.day} is {percent(memory.seen[-1].figure - level)} {side} than its level"
    if agrees is False:
        said, state = f"{start}; the rerun does not confirm it", State.OPEN if memory.open else State.OK
    elif agrees:
        said, state = f"{start}, and so is its rerun; one night is no alert, the next decides", State.CONFIRM
    else:
        said, state = f"{start}; a rerun is asked for", State.CONFIRM
    return Verdict(night.ordinal, state, said, None, agrees is None, *bar.relative(), memory.open)


def _tell(
    memory: Memory, found: Candidate, series: Series, night: Night, acks: Sequence[Ack], rules: Rules
) -> tuple[Memory, Verdict]:
    """The change begins a new level, whichever way it goes and whether or not somebody knows of it."""
    change = to_change(found, memory, series.higher_is_better)
    said, still = change.sentence(series), memory.open
    ack = next((ack for ack in acks if abs(ack.ordinal - change.ordinal) <= rules.ack_reach_days), None)
    if ack is not None:
        state, said = State.ACKNOWLEDGED, f"{said}, acknowledged: {ack.reason}"
    elif change.is_worse:
        state, said, still = State.ALERT, f"regression: {said}", (*still, change)
    else:
        still = tuple(each for each in still if not _is_back(each.before, change.after, found.bar, series))
        gone = f"; back to where it was before {day(memory.open[0].ordinal)}" if memory.open and not still else ""
        state, said = State.IMPROVEMENT, f"improvement: {said}{gone}"
    memory = replace(memory.with_level(found.at), open=still)
    return memory, Verdict(night.ordinal, state, said, change, False, *found.bar.relative(), still)


def _is_back(before: float, now: float, bar: Bar, series: Series) -> bool:
    shortfall = math.log(before / now) if series.higher_is_better else math.log(now / before)
    return shortfall < bar.height


# --- nothing changed --------------------------------------------------------------------------------------------------


def _nothing_new(
    memory: Memory, night: Night, series: Series, figures: FloatArray, rules: Rules
) -> tuple[Memory, Verdict]:
    bar = bar_over(figures, memory, rules)
    noise, height = bar.relative()
    is_noisy, was_told = height > rules.noisy_bar, memory.is_told_noisy
    # Told again only after it was clearly quiet: an estimate that wavers around a limit would be told again and again.
    is_told = is_noisy or (was_told and height >= (rules.min_effect + rules.noisy_bar) / 2)
    memory = replace(memory, is_told_noisy=is_told)
    if is_noisy and not was_told:
        state, said = (
            State.NOISY,
            (
                f"{series} is too noisy to judge changes of {100 * rules.min_effect:.0f} %: nights differ by "
                f"{percent(bar.noise)} (one sd), so only changes beyond {percent(bar.height)} are told (not repeated)"
            ),
        )
    elif memory.open:
        told = "; ".join(change.sentence(series) for change in memory.open)
        state, said = State.OPEN, f"still open, not acknowledged: {told}"
    else:
        said = f"{series}: {_figure(night)}, nothing beyond {percent(bar.height)} [{series.cell.label}]"
        state = State.OK
    return memory, Verdict(night.ordinal, state, said, None, False, noise, height, memory.open)


def _figure(night: Night) -> str:
    return f"{math.exp(seen_of(night).figure):.4g}"
