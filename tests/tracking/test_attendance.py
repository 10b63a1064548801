"""Alarms about nights and cells that are not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.errors import ConfigError
from harness.tracking.attendance import missing
from harness.tracking.histories import CELL, FIRST_DAY
from harness.tracking.outcome import Ack
from harness.tracking.series import Night, Series

NAME = "output_tokens_per_s of apex on chat of nightly"


def series(last: int, engine: str = "apex", testbed: str = "here", fit: bool = True) -> Series:
    nights = [
        Night(FIRST_DAY + at, (1.0,), testbed=testbed, fit=fit, unfit_reason="" if fit else "busy")
        for at in range(last)
    ]
    return Series(replace(CELL, engine=engine), "output_tokens_per_s", True, tuple(nights))


def test_no_night_for_days_is_an_alarm() -> None:
    assert missing(series(10), FIRST_DAY + 11) is None
    found = missing(series(10), FIRST_DAY + 12)
    assert found is not None
    assert found.sentence == f"{NAME} has no night for 3 days, the last is of 2026-01-10"


def test_a_cell_that_the_rest_of_the_run_has_left_behind_is_missing_at_once() -> None:
    found = missing(series(10), FIRST_DAY + 10, [series(11, "gpu_only")])
    assert found is not None
    assert found.sentence == f"{NAME} is missing since 2026-01-10: others of nightly have a night of 2026-01-11"
    assert missing(series(11), FIRST_DAY + 10, [series(11, "gpu_only")]) is None


def test_a_series_that_ended_on_purpose_or_moved_is_not_missing() -> None:
    assert missing(series(10), FIRST_DAY + 40, acks=[Ack(FIRST_DAY + 12, "engine removed")]) is None
    assert missing(series(10), FIRST_DAY + 40, [series(40, testbed="another")]) is None
    assert missing(series(10), FIRST_DAY + 40, [series(40, "gpu_only", testbed="another")]) is not None


def test_nights_that_are_never_fit_are_an_alarm() -> None:
    found = missing(series(10, fit=False), FIRST_DAY + 9)
    assert found is not None
    assert found.sentence == f"{NAME} has no fit night for 10 days, the last time because busy"


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_figures_without_ratios_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="is no positive number; changes are ratios"):
        Night(FIRST_DAY, (1.0, value))


def test_a_fit_night_without_values_is_refused() -> None:
    with pytest.raises(ConfigError, match="a fit night needs at least one value"):
        Night(FIRST_DAY, ())
    Night(FIRST_DAY, (), fit=False)


def test_testbeds_are_not_mixed() -> None:
    nights = (Night(FIRST_DAY, (1.0,), testbed="a"), Night(FIRST_DAY + 1, (1.0,), testbed="b"))
    with pytest.raises(ConfigError, match="a, b in one series"):
        Series(CELL, "output_tokens_per_s", True, nights)


def test_nights_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="in order, one a day"):
        Series(CELL, "output_tokens_per_s", True, (Night(FIRST_DAY, (1.0,)), Night(FIRST_DAY, (1.0,))))
