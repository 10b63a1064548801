"""What measuring cost and how far the instrument itself may be wrong: sampling, the load generator, deciding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from reports import names
from reports.rendering import render
from reports.values import listing, percent, quantity, seconds
from results.query import Run
from results.schema import Label

SAMPLING_AIM = 0.01
DRIVER = "driver_"
CALIBRATION = "driver_calibration"  # of the manifest's machine
MOST_NAMED = 2


def build(run: Run) -> Markup:
    """Empty when no cell says anything about it."""
    sentences = [sentence for sentence in (_sampling(run), _deciding(run), _late(run), _driver(run)) if sentence]
    doubts = _doubts(run)
    return render("instrument.html", sentences=sentences, doubts=doubts) if sentences or doubts else Markup("")


def _values(run: Run, metric: str) -> list[float]:
    return [value for group in run.groups() if (spread := group.spread(metric)) for value in spread.values]


def _sampling(run: Run) -> str:
    costs = _values(run, "sampler_cost_share")
    if not costs:
        return ""
    most = max(costs)
    verdict = "which keeps" if most < SAMPLING_AIM else "which misses"
    return (
        f"Watching the machine took {percent(most, 2)} of one core at most, {verdict} the aim of less than "
        f"{percent(SAMPLING_AIM)}."
    )


def _deciding(run: Run) -> str:
    """Of few engines each, of many the extremes."""
    shares = {engine: _of_engine(run, engine, "scheduler_share") for engine in run.engines}
    most = sorted((max(found), engine) for engine, found in shares.items() if found)
    if not most:
        return ""
    if len(most) > MOST_NAMED and percent(most[0][0], 2) == percent(most[-1][0], 2):
        return f"Of the serving time, deciding what to do next took at most {percent(most[0][0], 2)} in every engine."
    chosen = most if len(most) <= MOST_NAMED else [most[0], most[-1]]
    said = (" and " if len(most) <= MOST_NAMED else " to ").join(
        f"{percent(share, 2)} in {name}" for share, name in chosen
    )
    return f"Of the serving time, deciding what to do next took at most {said}."


def _of_engine(run: Run, engine: str, metric: str) -> list[float]:
    groups = (group for group in run.groups() if group.engine == engine)
    return [value for group in groups if (spread := group.spread(metric)) for value in spread.values]


def _late(run: Run) -> str:
    medians, largest = _values(run, "dispatch_delay_s_p50"), _values(run, "dispatch_delay_s_max")
    if not largest or max(largest) <= 0:
        return ""
    middle = f", {seconds(max(medians))} in the median of the worst cell" if medians else ""
    return (
        f"Requests were handed over at most {seconds(max(largest))} after they were due{middle}; latencies include it."
    )


def _driver(run: Run) -> str:
    """The load generator against a mock engine of known latency: the calibration's sentence, or the cells' metrics."""
    calibration = _calibration(run)
    if calibration.get("note"):
        return "" if calibration.get("valid") is False else _sentence(calibration["note"])
    keys = dict.fromkeys(key for cell in run.cells for key in cell.metrics if key.startswith(DRIVER))
    said = listing(_driver_figure(key, _values(run, key)) for key in keys if _values(run, key))
    return f"The load generator’s own error, against a mock engine of known latency: {said}." if said else ""


def _doubts(run: Run) -> list[str]:
    """What makes the wall clock of this machine doubtful; a virtual clock is nobody else's."""
    if run.labels == (Label.SIMULATED,):
        return []
    calibration = _calibration(run)
    late = calibration.get("note") if calibration.get("valid") is False else None
    return [_sentence(doubt) for doubt in (run.manifest.machine.get("load_warning"), late) if doubt]


def _sentence(note: object) -> str:
    text = str(note)
    return f"{text[:1].upper()}{text[1:]}."


def _calibration(run: Run) -> Mapping[str, object]:
    found = run.manifest.machine.get(CALIBRATION)
    return found if isinstance(found, Mapping) else {}


def _driver_figure(key: str, values: Iterable[float]) -> str:
    worst = max(values, key=abs)
    unit = " %" if "percent" in key else " µs" if key.split("_")[-1] == "us" else ""
    return f"{names.metric(key.removeprefix(DRIVER))} {quantity(key, worst)}{unit}"
