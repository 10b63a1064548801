"""The tracker: what a mean is made of, and when a drift is one."""

from __future__ import annotations

import math

import pytest

from engines.lp_balanced.tracker import Key, Tracker


def seen(tracker: Tracker, key: Key, *ratios: float) -> Tracker:
    for ratio in ratios:
        tracker.observe(key, ratio)
    return tracker


def test_what_was_never_observed_is_as_predicted() -> None:
    assert Tracker().scale("cpu") == 1.0
    assert not Tracker().drifted(0.1)


def test_the_first_observation_is_taken_as_it_is() -> None:
    assert seen(Tracker(), "cpu", 1.7).scale("cpu") == 1.7


def test_a_weight_halves_in_a_half_life() -> None:
    """Four observations of 2 after a 1: half of the way. After four more, three quarters."""
    tracker = seen(Tracker(half_life=4), "cpu", 1.0, 2.0, 2.0, 2.0, 2.0)
    assert tracker.scale("cpu") == pytest.approx(1.5)
    assert seen(tracker, "cpu", *[2.0] * 4).scale("cpu") == pytest.approx(1.75)


def test_keys_are_apart() -> None:
    tracker = seen(seen(Tracker(), "cpu", 2.0), ("gpu", "up"), 0.5)
    assert (tracker.scale("cpu"), tracker.scale(("gpu", "up")), tracker.scale("gpu")) == (2.0, 0.5, 1.0)


@pytest.mark.parametrize("ratio", [1.3, 1 / 1.3])
def test_a_drift_to_either_side_is_one_after_patience(ratio: float) -> None:
    tracker = Tracker(patience=3)
    answers = [seen(tracker, "h2d", ratio).drifted(0.25) for _ in range(5)]
    assert answers == [False, False, True, True, True]


@pytest.mark.parametrize("ratio", [1.25, 1.2, 0.8, 0.81])
def test_the_band_is_no_drift(ratio: float) -> None:
    """It is as wide below as above, in ratios: from 1 / 1.25 to 1.25."""
    assert not seen(Tracker(), "h2d", *[ratio] * 20).drifted(0.25)


def test_the_band_is_named_when_asked() -> None:
    tracker = seen(Tracker(), "cpu", *[1.3] * 3)
    assert tracker.drifted(0.2)
    assert not tracker.drifted(0.4)


@pytest.mark.parametrize("slow", [3.0, 100.0])
def test_one_slow_step_is_no_drift(slow: float) -> None:
    """Though it keeps the mean outside of the band for a while."""
    tracker = seen(Tracker(half_life=4, patience=2), "cpu", *[1.0] * 10, slow)
    assert tracker.scale("cpu") > 1.2
    for _ in range(20):
        assert not tracker.drifted(0.2)
        tracker.observe("cpu", 1.0)


def test_steps_past_the_band_must_come_in_a_row() -> None:
    tracker = Tracker(half_life=1, patience=3)
    assert not seen(tracker, "cpu", 2.0, 2.0, 1.0, 2.0, 2.0).drifted(0.2)
    assert seen(tracker, "cpu", 2.0).drifted(0.2)


def test_and_to_one_side() -> None:
    assert not seen(Tracker(half_life=1, patience=2), "cpu", *[2.0, 0.2] * 5).drifted(0.2)


def test_the_mean_must_have_left_too() -> None:
    """Steps a little past the band, after many that were not."""
    tracker = seen(Tracker(half_life=50, patience=2), "cpu", 1.0, *[1.3] * 5)
    assert not tracker.drifted(0.2)
    assert seen(tracker, "cpu", *[1.3] * 200).drifted(0.2)


def test_observations_of_others_are_not_in_the_row() -> None:
    tracker = Tracker(patience=2)
    assert not seen(seen(tracker, "cpu", 2.0), "gpu", 1.0, 1.0).drifted(0.2)
    assert seen(tracker, "cpu", 2.0).drifted(0.2)


def test_drift_is_counted_from_the_last_plan() -> None:
    tracker = seen(Tracker(half_life=1), "cpu", *[2.0] * 4)
    assert tracker.drifted(0.2)
    tracker.rebase()
    assert tracker.scale("cpu") == 2.0
    assert not tracker.drifted(0.2)
    assert not seen(tracker, "cpu", *[2.0] * 10).drifted(0.2)
    assert seen(tracker, "cpu", *[1.0] * 3).drifted(0.2)  # back to what it was is a drift, too


def test_patience_starts_anew_with_a_plan() -> None:
    tracker = seen(Tracker(half_life=100, patience=3), "cpu", 1.0, *[9.0] * 40)
    tracker.rebase()
    assert [seen(tracker, "cpu", 90.0).drifted(0.2) for _ in range(4)] == [False, False, True, True]


def test_equal_observations_give_equal_answers() -> None:
    ratios = [1.0 + 0.3 * math.sin(step) + 0.01 * step for step in range(60)]
    first, second = Tracker(), Tracker()
    for ratio in ratios:
        answers = [(seen(each, "cpu", ratio).drifted(0.2), each.scale("cpu")) for each in (first, second)]
        assert answers[0] == answers[1]
    assert first == second


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_ratios_that_cannot_be_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="cpu: observed / predicted"):
        Tracker().observe("cpu", ratio)


def test_settings_that_cannot_be_are_refused() -> None:
    for half_life, patience in ((0.0, 3), (math.nan, 3), (4.0, 0)):
        with pytest.raises(ValueError, match="half_life above 0"):
            Tracker(half_life, patience)
    with pytest.raises(ValueError, match="the band"):
        Tracker().drifted(0.0)
