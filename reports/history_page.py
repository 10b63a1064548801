"""The history of nights as a page: what was found, a chart for each series, every night, every testbed.

Made from the JSON that the harness makes of its history. Nothing is judged here, and figures are as they were stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reports.answer_page import answer_page
from reports.drawing import Alt
from reports.history_charts import history_chart
from reports.labels import MEANING
from reports.values import ABSENT, GAP, Scale, count, figure, flatten, percent, plain_scale, quantity, span, time_scale
from results.schema import Label

JSON = Mapping[str, Any]
BAD = {"alert", "open"}
DOUBTFUL = {"unfit", "too noisy", "missing", "lost", "confirm"}

# What is said of a series, in the words of the judgement.
STATES = {
    "ok": "nothing beyond what its noise allows to tell.",
    "learning": "too few nights yet: it is not judged.",
    "observed": "shown and never judged: the tail of a distribution, or a cell of very few requests.",
    "confirm": "the night looks changed; running again decides.",
    "alert": "a regression, told for the first time.",
    "open": "a regression that was told before, and is neither acknowledged nor gone.",
    "improvement": "better than before.",
    "acknowledged": "changed, and somebody said why.",
    "too noisy": "nights differ by so much that only large changes can be told.",
    "unfit": "the machine was busy, hot or throttled, or the same code came out apart from itself: no evidence.",
    "missing": "nights do not come any more.",
    "lost": "repeats that gave no figure.",
}


@dataclass(frozen=True, slots=True)
class NightRow:
    night: str
    median: str
    repeats: str
    state: str
    style: str
    versions: str
    sentence: str


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """One chart with what stands around it. `rows` are its nights, the latest first."""

    anchor: str
    name: str
    title: str
    metric: str
    unit: str
    label: str
    testbed: str
    state: str
    style: str
    nights: int
    latest: str
    level: str
    noise: str
    bar: str
    sentence: str
    chart: Markup | None
    events: tuple[str, ...]
    rows: tuple[NightRow, ...]


def history_page(data: JSON, told: Mapping[str, str]) -> str:
    """`told`: command, date and commit, as far as the caller knows them."""
    check, series = data["check"], data["series"]
    parts = [_part(each, number) for number, each in enumerate(series)]
    labels = sorted({part.label for part in parts})
    return answer_page(
        "history.html",
        f"Nightly performance until {check['night']}",
        "Performance history",
        told,
        labels=[(label, MEANING[Label(label)]) for label in labels],
        facts=_facts(data),
        verdict=_verdict(check),
        findings=[(finding["sentence"], finding["label"], _style(finding["state"])) for finding in check["findings"]],
        parts=parts,
        nights=[_night(each) for each in data["nights"]],
        testbeds=[(each["digest"], _facts_of(each["facts"])) for each in data["testbeds"]],
        states=[(state, _style(state), meaning) for state, meaning in STATES.items()],
    )


def _facts(data: JSON) -> list[tuple[str, str]]:
    nights = [each for each in data["nights"] if each["runs"]]
    without = len(data["nights"]) - len(nights)
    first = f", the first of {nights[-1]['night']}" if nights else ""
    return [
        ("Series", f"{len(data['series']):,}"),
        ("Nights", f"{len(nights):,}{first}"),
        ("Days without one", f"{without:,}"),
        ("Testbeds", f"{len(data['testbeds']):,}"),
    ]


def _verdict(check: JSON) -> str:
    states = [finding["state"] for finding in check["findings"]]
    bad, doubtful = sum(state in BAD for state in states), sum(state in DOUBTFUL for state in states)
    if not check["states"]:
        return "The history has no series yet."
    if bad:
        return f"{count(bad, 'regression')} not acknowledged."
    if doubtful:
        return f"No regression shown, and {count(doubtful, 'gap')} in what could be judged."
    return "No regression shown."


def _part(series: JSON, number: int) -> SeriesPart:
    scale = _scale(series)
    counted = [night for night in series["nights"] if night["counts"]]
    level = series["levels"][-1]["value"] if series["levels"] else None
    drawn = any(night["values"] for night in series["nights"])
    direction = "more is better" if series["higher_is_better"] else "less is better"
    return SeriesPart(
        anchor=f"series-{number}",
        name=series["name"],
        title=f"{series['engine']} on {series['workload']}",
        metric=series["metric"],
        unit=f"{series['unit']}, {direction}",
        label=series["label"],
        testbed=series["testbed"],
        state=series["state"],
        style=_style(series["state"]),
        nights=len(counted),
        latest=_latest(counted, level, series["unit"]),
        level=_written(level, series["unit"]),
        noise=ABSENT if series["noise"] is None else percent(series["noise"], 1),
        bar=ABSENT if series["bar"] is None else percent(series["bar"], 1),
        sentence=series["sentence"],
        chart=history_chart(series, scale, Alt(f"s{number}", _said(series))) if drawn else None,
        events=tuple(_events(series)),
        rows=tuple(_row(night) for night in reversed(series["nights"])),
    )


def _said(series: JSON) -> str:
    """For those who do not see the chart."""
    changes = f"; {count(len(series['changes']), 'change')}" if series["changes"] else ""
    nights = f"{count(len(series['nights']), 'night')} from {series['nights'][0]['night']} on"
    return f"{series['metric']} of {series['engine']} on {series['workload']}, {series['label']}: {nights}{changes}"


def _scale(series: JSON) -> Scale:
    values = [value for night in series["nights"] for value in (*night["values"], *night["rerun"])]
    return time_scale(values) if series["unit"] == "s" else plain_scale(values, series["unit"])


def _latest(counted: Sequence[JSON], level: float | None, unit: str) -> str:
    if not counted:
        return ABSENT
    value = counted[-1]["median"]
    apart = f" ({100 * (value / level - 1):+.1f}{GAP}%)" if level else ""
    return f"{_written(value, unit)}{apart}"


def _written(value: float | None, unit: str) -> str:
    if value is None:
        return ABSENT
    return quantity("value_s", value) if unit == "s" else figure(value)


def _events(series: JSON) -> list[str]:
    """The latest first."""
    found = [(change["told"], change["sentence"]) for change in series["changes"]]
    found += [(ack["night"], f"acknowledged from {ack['night']} on: {ack['reason']}") for ack in series["acks"]]
    lost: dict[tuple[str, str], int] = {}
    for each in series["lost"]:
        lost[each["night"], each["reason"]] = lost.get((each["night"], each["reason"]), 0) + 1
    found += [(night, f"{count(number, 'repeat')} without a figure: {why}") for (night, why), number in lost.items()]
    return [f"{night}: {sentence}" for night, sentence in sorted(found, reverse=True)]


def _row(night: JSON) -> NightRow:
    values = " ".join(_exact(value) for value in night["values"])
    rerun = f"; again {' '.join(map(_exact, night['rerun']))}" if night["rerun"] else ""
    return NightRow(
        night=night["night"],
        median=ABSENT if night["median"] is None else _exact(night["median"]),
        repeats=f"{values}{rerun}" or ABSENT,
        state=night["state"],
        style=_style(night["state"]),
        versions="; ".join(night["versions"]),
        sentence=night["sentence"],
    )


def _exact(value: float) -> str:
    """Six digits, more than any of these figures holds from one night to the next."""
    return f"{value:.6g}"


def _night(night: JSON) -> dict[str, object]:
    return {
        "night": night["night"],
        "unfit": "" if any(not run["unfit"] for run in night["runs"]) else night["unfit"],
        "runs": [
            {
                **run,
                "role": "" if run["role"] == "night" else run["role"],
                "environment": _environment(run["environment"]),
            }
            for run in night["runs"]
        ],
    }


def _environment(environment: JSON) -> list[tuple[str, str]]:
    """Loads, clocks and temperatures as spans; all else as it was told."""
    told = []
    for key, value in environment.get("sampled", {}).items():
        whole = f"{span(figure(value['low']), figure(value['high']))}" if isinstance(value, Mapping) else str(value)
        told.append((key, whole))
    rest = {key: value for key, value in environment.items() if key not in ("sampled", "gpus")}
    return [*told, *((key, quantity(key, value)) for key, value in flatten(rest)), *_gpus(environment.get("gpus"))]


def _gpus(gpus: object) -> list[tuple[str, str]]:
    if not isinstance(gpus, list):
        return [("gpus", str(gpus))] if gpus else []
    return [("gpu", ", ".join(f"{key} {quantity(key, value)}" for key, value in gpu.items())) for gpu in gpus]


def _facts_of(facts: JSON) -> list[tuple[str, str]]:
    told = {key: value for key, value in facts.items() if key != "gpus"}
    return [(key, quantity(key, value)) for key, value in told.items()] + (_gpus(facts.get("gpus") or "none"))


def _style(state: str) -> str:
    return "bad" if state in BAD else "doubtful" if state in DOUBTFUL else "fine"
