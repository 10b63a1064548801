"""The history as plain data for its page: every series with its nights, levels, changes and noise, every night with its
runs, every testbed. Figures are as they were stored; nothing is rounded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from itertools import zip_longest
from statistics import median
from typing import Any

from harness.tracking.checking import Check, acks_by_series
from harness.tracking.judgement import levels, replay
from harness.tracking.loading import Tracked, load_tracked
from harness.tracking.outcome import Ack, Change, State, Verdict
from harness.tracking.series import Night, day
from results.history import History
from results.history_rows import RunHead

JSON = dict[str, Any]


def told_history(history: History, check: Check, metrics: Sequence[str] = ()) -> JSON:
    """As of the night of the check."""
    acks = acks_by_series(history.acks())
    tracked = [each.until(check.night) for each in load_tracked(history, metrics)]
    shown = [each for each in tracked if each.series.nights]
    runs = [run for run in history.runs() if run.night <= check.night]
    return {
        "check": check.to_json(),
        "series": [_series(each, acks.get(each.name, ())) for each in shown],
        "nights": _nights(runs, shown, check.night),
        "testbeds": [
            {"digest": digest, "facts": dict(facts)}
            for digest, facts in history.testbeds().items()
            if any(each.key.testbed == digest for each in shown)
        ],
    }


def _series(each: Tracked, acks: Sequence[Ack]) -> JSON:
    verdicts = replay(each.series, acks)
    nights = [_night(each, night, verdict) for night, verdict in zip(each.series.nights, verdicts, strict=True)]
    last = verdicts[-1]
    measured = next((verdict for verdict in reversed(verdicts) if verdict.bar is not None), None)
    return {
        "name": each.name,
        "engine": each.key.engine,
        "workload": each.key.workload,
        "experiment": each.series.cell.experiment,
        "metric": each.metric_key,
        "unit": each.metric.unit,
        "higher_is_better": each.series.higher_is_better,
        "label": str(each.label),
        "testbed": each.key.testbed,
        "setup": each.key.setup,
        "state": str(last.state),
        "sentence": last.sentence,
        "nights": nights,
        "missing": _without_night({night["night"] for night in nights}),
        "levels": _levels(nights, [day(ordinal) for ordinal in levels(each.series, acks)]),
        "changes": [_change(verdict) for verdict in verdicts if verdict.change is not None],
        "open": [_of(change) for change in last.open],
        "acks": [{"night": day(ack.ordinal), "reason": ack.reason} for ack in acks],
        "noise": measured.noise if measured else None,
        "bar": measured.bar if measured else None,
        "lost": [asdict(lost) for lost in each.lost],
    }


def _night(each: Tracked, night: Night, verdict: Verdict) -> JSON:
    return {
        "night": night.day,
        "values": list(night.values),
        "rerun": list(night.rerun),
        "control": list(night.control),
        "median": median((*night.values, *night.rerun)) if night.values else None,
        "counts": verdict.state is not State.UNFIT,
        "state": str(verdict.state),
        "sentence": verdict.sentence,
        "versions": list(dict.fromkeys(str(run.version) for run in each.runs.get(night.day, ()))),
    }


def _levels(nights: Iterable[Mapping[str, Any]], begins: Sequence[str]) -> list[JSON]:
    """Medians of the nights that count, from each beginning to the next; nights before the first are forgotten."""
    counted = [night for night in nights if night["counts"]]
    found = []
    for begin, end in zip_longest(begins, begins[1:]):
        inside = [night for night in counted if begin <= night["night"] and (end is None or night["night"] < end)]
        if inside:
            values = [night["median"] for night in inside]
            found.append({"from": inside[0]["night"], "to": inside[-1]["night"], "value": median(values)})
    return found


def _change(verdict: Verdict) -> JSON:
    assert verdict.change is not None
    return {"told": day(verdict.ordinal), "state": str(verdict.state), "sentence": verdict.sentence} | _of(
        verdict.change
    )


def _of(change: Change) -> JSON:
    return {
        "shape": str(change.shape),
        "night": day(change.ordinal),
        "since": day(change.since),
        "size": change.size.value,
        "low": change.size.low,
        "high": change.size.high,
        "before": change.before,
        "after": change.after,
        "is_worse": change.is_worse,
    }


def _without_night(nights: set[str]) -> list[str]:
    """Days between the first and the last that have none."""
    first, last = date.fromisoformat(min(nights)), date.fromisoformat(max(nights))
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [each.isoformat() for each in days if each.isoformat() not in nights]


def _nights(runs: Sequence[RunHead], shown: Sequence[Tracked], until: str) -> list[JSON]:
    """Every day from the first, the latest first: with its runs, or why there is none."""
    unfit = {night.day: night.unfit_reason for each in shown for night in each.series.nights if not night.fit}
    found = {run.night for run in runs} | set(unfit)
    if not found:
        return []
    days = sorted(found | set(_without_night(found | {until})), reverse=True)
    return [
        {"night": each, "unfit": unfit.get(each, ""), "runs": [_run(run) for run in runs if run.night == each]}
        for each in days
    ]


def _run(run: RunHead) -> JSON:
    return {
        "name": run.name,
        "role": str(run.role),
        "created_utc": run.created_utc,
        "version": str(run.version),
        "unfit": run.unfit,
        "environment": dict(run.environment),
    }
