"""Alarms about what is not there: no nights for days, or a cell that used to be in the nightly run and is no longer."""

from __future__ import annotations

from collections.abc import Sequence

from harness.tracking.outcome import Ack, State, Verdict
from harness.tracking.rules import DEFAULT, Rules
from harness.tracking.series import Series, day


def missing(
    series: Series, today: int, siblings: Sequence[Series] = (), acks: Sequence[Ack] = (), rules: Rules = DEFAULT
) -> Verdict | None:
    """An alarm, or None. `siblings`: the other series of the store; `today` as date.toordinal() counts.

    A series that was acknowledged after its last night has ended on purpose; one whose cell and metric goes on on
    another testbed has moved there.
    """
    if not series.nights:
        return None
    last = series.nights[-1].ordinal
    if any(ack.ordinal > last for ack in acks) or _has_moved(series, siblings):
        return None
    since = today - last
    run = max((other.nights[-1].ordinal for other in siblings if _is_same_run(series, other)), default=last)
    if run > last and since < rules.missing_days:
        said = f"{series} is missing since {day(last)}: others of {series.cell.experiment} have a night of {day(run)}"
        return Verdict(today, State.MISSING, said)
    if since >= rules.missing_days:
        said = f"{series} has no night for {since} days, the last is of {day(last)}"
        return Verdict(today, State.MISSING, said)
    return _never_fit(series, today, rules)


def _never_fit(series: Series, today: int, rules: Rules) -> Verdict | None:
    """Nights that come and are all turned away are missing too."""
    fit = next((night.ordinal for night in reversed(series.nights) if night.fit), None)
    since = today - (series.nights[0].ordinal - 1 if fit is None else fit)
    if series.nights[-1].fit or since < rules.missing_days:
        return None
    reason = series.nights[-1].unfit_reason or "the machine was not fit"
    return Verdict(today, State.MISSING, f"{series} has no fit night for {since} days, the last time because {reason}")


def _is_same_run(series: Series, other: Series) -> bool:
    return (
        bool(other.nights)
        and other.testbed == series.testbed
        and (other.cell.experiment, other.cell.label) == (series.cell.experiment, series.cell.label)
    )


def _has_moved(series: Series, siblings: Sequence[Series]) -> bool:
    return any(
        other.nights[-1].ordinal > series.nights[-1].ordinal
        for other in siblings
        if other.nights
        and (other.cell, other.metric) == (series.cell, series.metric)
        and other.testbed != series.testbed
    )
