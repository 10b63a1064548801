"""From the history to the series that are judged: nights with their repeats, reruns and controls, and who they are.

Reads the history and works nothing out but ratios of a control. What is said about a series is judgement.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from harness.errors import ConfigError
from harness.metric_catalogue import Metric, find
from harness.tracking.identity import digest
from harness.tracking.series import Night, Series, TrackedCell
from results.history import History
from results.history_rows import Role, RunHead, SeriesKey, Skipped, Value
from results.schema import Label

# Rates over the whole run: the window is the plateau in one night and the whole run in another, where it hangs on a
# request or two, and such a night would look changed. Means, since percentiles are left out where requests are few.
DEFAULT_METRICS = ("output_tokens_per_s_whole_run", "ttft_s_mean", "tpot_s_mean")
REQUESTS = "finished_requests"
NO_FIGURE = "it has no such figure"
NO_RATIO = "its figure is not above 0, and changes are ratios"


@dataclass(frozen=True, slots=True)
class Lost:
    """A repeat of a night that gave no figure, and why."""

    night: str
    repeat: int
    reason: str


@dataclass(frozen=True, slots=True)
class Tracked:
    """One metric of one series of cells. `lost` are repeats without a figure, of whatever night."""

    name: str  # as acknowledgements and the page have it
    key: SeriesKey
    metric: Metric
    metric_key: str
    series: Series
    lost: tuple[Lost, ...]
    runs: Mapping[str, tuple[RunHead, ...]]  # by night

    @property
    def label(self) -> Label:
        return self.key.label

    @property
    def has_figures(self) -> bool:
        return any(night.values for night in self.series.nights)

    def until(self, night: str) -> Tracked:
        """As it was known then."""
        nights = tuple(each for each in self.series.nights if each.day <= night)
        lost = tuple(each for each in self.lost if each.night <= night)
        return replace(self, series=replace(self.series, nights=nights), lost=lost)


def load_tracked(history: History, metrics: Sequence[str] = ()) -> list[Tracked]:
    """Every series of the history for each of the metrics that it has, or that its cells failed to give."""
    wanted = {key: _metric(key) for key in metrics or DEFAULT_METRICS}
    heads = {head.key: head for head in history.runs()}
    skipped = history.skipped()
    found = [
        _tracked(history, key, metric_key, metric, heads, skipped)
        for key in history.series()
        for metric_key, metric in wanted.items()
    ]
    return [each for each in found if each.has_figures or any(lost.reason != NO_FIGURE for lost in each.lost)]


def load_every(history: History) -> list[Tracked]:
    """For every metric that anything can be said of, for those who name one."""
    known = [name for name in history.metrics() if (found := find(name)) and found.higher_is_better is not None]
    return [each for each in load_tracked(history, known) if each.series.nights]


def find_tracked(tracked: Sequence[Tracked], name: str) -> Tracked:
    """By its name, or by the part before the @ where only one series begins so."""
    exact = [each for each in tracked if each.name == name]
    begun = exact or [each for each in tracked if each.name.rpartition("@")[0] == name]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise ConfigError(f"{name}: there are {len(begun)} of them: {', '.join(each.name for each in begun)}")
    from engines.suggest import did_you_mean

    names = [each.name for each in tracked]
    raise ConfigError(f"{name}: no such series; {did_you_mean(name, names)}")


def series_name(key: SeriesKey, metric: str) -> str:
    return f"{key.engine}/{key.workload}/{metric}@{digest([key.label, key.testbed, key.setup])[:6]}"


def _metric(key: str) -> Metric:
    metric = find(key)
    if metric is None:
        raise ConfigError(f"--metric {key}: there is no such metric; `harness list metrics` has them all")
    if metric.higher_is_better is None:
        raise ConfigError(f"--metric {key}: neither more nor less of it is better, so that it cannot regress")
    return metric


def _tracked(
    history: History,
    key: SeriesKey,
    metric_key: str,
    metric: Metric,
    heads: Mapping[str, RunHead],
    skipped: Iterable[Skipped],
) -> Tracked:
    values = history.values(key, metric_key)
    by_night: dict[str, list[Value]] = {}
    for value in values:
        by_night.setdefault(value.night, []).append(value)
    series = Series(
        cell=TrackedCell(heads[values[-1].run].name, key.workload, key.engine, str(key.label)),
        metric=metric_key,
        higher_is_better=bool(metric.higher_is_better),
        nights=tuple(_nights(by_night, heads, skipped, key.testbed)),
        requests=_requests(history.values(key, REQUESTS)),
    )
    lost = tuple(
        Lost(value.night, value.repeat, why)
        for value in values
        if value.role is not Role.CONTROL and (why := why_lost(value))
    )
    runs = {
        night: tuple(heads[run] for run in dict.fromkeys(each.run for each in by_night[night])) for night in by_night
    }
    return Tracked(series_name(key, metric_key), key, metric, metric_key, series, lost, runs)


def _nights(
    by_night: Mapping[str, Sequence[Value]], heads: Mapping[str, RunHead], skipped: Iterable[Skipped], testbed: str
) -> list[Night]:
    """A night on which nothing was run because the machine was not fit counts where there is no other figure of it."""
    found = {day: night for day, values in by_night.items() if (night := _night(day, values, heads, testbed))}
    for each in skipped:
        if each.testbed in ("", testbed) and each.night >= min(by_night):
            found.setdefault(each.night, _night_without(each.night, testbed, each.reason))
    return [night for _, night in sorted(found.items())]


def why_lost(value: Value) -> str:
    """Empty where the figure may be used."""
    if value.reason:
        return value.reason
    if value.value is None:
        return NO_FIGURE
    return NO_RATIO if value.value <= 0 else ""


def _night(day: str, values: Sequence[Value], heads: Mapping[str, RunHead], testbed: str) -> Night | None:
    """Of the runs made while the machine was fit, where there is one. None where nothing of the night can be used."""
    usable = [value for value in values if not why_lost(value)]
    fit = [value for value in usable if not heads[value.run].unfit]
    figures = {role: _figures(fit or usable, role) for role in Role}
    reasons = dict.fromkeys(heads[value.run].unfit for value in usable) if not fit else {}
    if not figures[Role.NIGHT]:
        return _night_without(day, testbed, "; ".join(reasons)) if reasons else None
    return Night(
        ordinal=date.fromisoformat(day).toordinal(),
        values=figures[Role.NIGHT],
        control=_control(fit or usable),
        testbed=testbed,
        fit=bool(fit),
        unfit_reason="; ".join(reasons),
        rerun=figures[Role.CONFIRMATION],
    )


def _night_without(day: str, testbed: str, reason: str) -> Night:
    return Night(date.fromisoformat(day).toordinal(), (), testbed=testbed, fit=False, unfit_reason=reason)


def _figures(values: Iterable[Value], role: Role) -> tuple[float, ...]:
    """Of all runs of the night: two of them are more repeats of it."""
    return tuple(value.value for value in values if value.role is role and value.value is not None)


def _control(values: Iterable[Value]) -> tuple[float, ...]:
    """The control over the night's own figure, repeat by repeat: both had the same requests."""
    sides: dict[Role, dict[int, float]] = {}
    for value in values:
        if value.value is not None:
            sides.setdefault(value.role, {}).setdefault(value.repeat, value.value)
    own = sides.get(Role.NIGHT, {})
    return tuple(figure / own[repeat] for repeat, figure in sides.get(Role.CONTROL, {}).items() if repeat in own)


def _requests(values: Sequence[Value]) -> int | None:
    """Of the last cell that says so."""
    found = [value.value for value in values if value.value is not None]
    return int(found[-1]) if found else None
