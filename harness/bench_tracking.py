"""`harness bench tracking`: how often nightly tracking cries wolf, and how often it sees a change in time.

On simulated histories, with noise as textbooks have it and as machines do: heavy tails, and nights like the one before.
The rates are those that documentation gives. Two to four minutes on one core.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from harness.tracking.histories import Detections, FalseAlarms, Kind, detection_rate, false_alarm_rate

HISTORIES, NIGHTS, STEPS = 1000, 60, 300
OTHER_HISTORIES = 300  # of noise that is not normal
NOISES = (0.01, 0.03)
STEP = -0.05
SEED = 20_260_101


def false_alarms() -> list[FalseAlarms]:
    """The headline first: 1,000 histories of 60 nights, normal noise of 1 %."""
    return [
        false_alarm_rate(
            HISTORIES if (kind, noise) == (Kind.NORMAL, NOISES[0]) else OTHER_HISTORIES, NIGHTS, noise, SEED, kind
        )
        for kind in Kind
        for noise in NOISES
    ]


def detections() -> list[Detections]:
    return [detection_rate(STEPS, STEP, NOISES[0], SEED, kind=kind) for kind in Kind]


def main(as_json: bool) -> None:
    alarms, found = false_alarms(), detections()
    if as_json:
        told = [{**asdict(each), "alert_share": each.alert_share, "told_share": each.told_share} for each in alarms]
        print(
            json.dumps({"false_alarms": told, "detections": [{**asdict(each), "share": each.share} for each in found]})
        )
        return
    print("\n".join([*map(alarm_line, alarms), *map(detection_line, found)]))


def alarm_line(rate: FalseAlarms) -> str:
    anything = rate.regressions + rate.improvements
    return (
        f"nothing changes, {rate.kind}, noise {rate.noise:.0%}: a false alert on {rate.alert_share:.3%} of nights, "
        f"anything told on {rate.told_share:.3%} ({anything} of {rate.judged}), in {rate.with_any} of {rate.histories} "
        f"histories of {rate.nights} nights; a rerun asked for on {rate.reruns / rate.judged:.1%}"
    )


def detection_line(rate: Detections) -> str:
    return (
        f"{abs(rate.size):.0%} less, {rate.kind}, noise {rate.noise:.0%}: alerted within {rate.within} nights in "
        f"{rate.in_time} of {rate.histories} histories ({rate.share:.1%}), ever in {rate.ever}"
    )
