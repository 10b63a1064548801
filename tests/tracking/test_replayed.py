"""Histories replayed night by night: what has to be found, with its sentence, and what must not be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.tracking.histories import CELL, FIRST_DAY, SERIES, play, simulated
from harness.tracking.judgement import judge, levels, replay, step
from harness.tracking.memory import Memory
from harness.tracking.outcome import Ack, Shape, State
from harness.tracking.series import Night, Series, by_testbed, day
from tests.tracking.histories import NOISE, flat, night_of, stepped, told, verdicts

SEEDS = (0, 2, 3)
NAME = "output_tokens_per_s of apex on chat of nightly"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_of_5_percent_is_alerted_once(seed: int) -> None:
    found = verdicts(stepped(30, -0.05), seed)
    (alert,) = told(found)
    assert alert.state is State.ALERT
    assert alert.change is not None
    assert 31 <= night_of(alert) <= 32
    assert abs(alert.change.ordinal - (FIRST_DAY + 30)) <= 1
    assert alert.change.size.low < -0.05 < alert.change.size.high
    change = alert.change
    assert alert.sentence == (
        f"regression: {NAME} is {-100 * change.size.value:.1f} % lower since {day(change.ordinal)} (95 % interval "
        f"{-100 * change.size.high:.1f}-{-100 * change.size.low:.1f} %; median {change.before:.4g} before, "
        f"{change.after:.4g} after; {change.nights} nights, p {change.p:.3f}) [simulated]"
    )


def test_the_sentence_in_full() -> None:
    (alert,) = told(verdicts(stepped(30, -0.05)))
    assert alert.sentence == (
        "regression: output_tokens_per_s of apex on chat of nightly is 5.8 % lower since 2026-01-31 (95 % interval "
        "3.9-7.7 %; median 999.5 before, 941.3 after; 2 nights, p 0.002) [simulated]"
    )


def test_an_alert_stays_open_and_is_not_told_again() -> None:
    found = verdicts(stepped(30, -0.05))
    (alert,) = told(found)
    later = found[night_of(alert) + 1 :]
    assert all(len(each.open) == 1 for each in later)
    assert {each.state for each in later} <= {State.OPEN, State.CONFIRM}
    assert later[-1].sentence.startswith(f"still open, not acknowledged: {NAME} is ")


def test_before_an_alert_a_rerun_was_asked_for() -> None:
    nights, reruns = simulated(stepped(30, -0.05), NOISE, np.random.default_rng(0))
    memory = Memory()
    for night in nights[:30]:
        memory, _ = step(memory, night, SERIES)
    _, first = step(memory, nights[30], SERIES)
    assert (first.state, first.wants_rerun) == (State.CONFIRM, True)
    assert first.sentence.endswith("lower than its level; a rerun is asked for")
    rerun = Night(nights[30].ordinal, nights[30].values, testbed="simulated", rerun=reruns(30))
    _, second = step(memory, rerun, SERIES)
    assert (second.state, second.wants_rerun) == (State.CONFIRM, False)
    assert second.sentence.endswith("so is its rerun; one night is no alert, the next decides")


def test_a_rerun_that_does_not_agree_ends_it() -> None:
    nights, _ = simulated(flat(31), NOISE, np.random.default_rng(0))
    bad = Night(nights[30].ordinal, (900.0, 905.0, 910.0), testbed="simulated", rerun=(1000.0, 1001.0, 1002.0, 999.0))
    found = replay(Series(CELL, "output_tokens_per_s", True, (*nights[:30], bad)))[-1]
    assert found.state is State.OK
    assert found.sentence.endswith("the rerun does not confirm it") or "nothing beyond" in found.sentence
    assert not found.wants_rerun


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slow_drift_is_found_as_one(seed: int) -> None:
    """-0.2 % a night: no night differs from the one before by more than noise."""
    found = told(verdicts(1 - 0.002 * np.arange(60.0), seed))
    assert found, "0.2 % a night make 12 % in all"
    assert all(each.state is State.ALERT for each in found)
    assert len(found) <= 5, "an alert for every bar's worth, not for every night"
    assert night_of(found[0]) <= 30
    drifts = [each for each in found if each.change is not None and each.change.shape is Shape.DRIFT]
    assert drifts
    assert " has drifted " in drifts[0].sentence
    assert " lower from 2026-" in drifts[0].sentence


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [-0.3, -0.08, 0.3])
def test_one_bad_night_alone_is_no_alert(seed: int, size: float) -> None:
    around = flat()
    around[30] *= 1 + size
    found = verdicts(around, seed)
    assert told(found) == []
    assert found[30].state is State.CONFIRM
    assert found[30].sentence.endswith("and so is its rerun; one night is no alert, the next decides")
    assert found[32].state is not State.CONFIRM


def test_a_noisy_machine_is_said_to_be_once() -> None:
    found = verdicts(flat(), noise=0.06)
    assert told(found) == []
    noisy = [each for each in found if each.state is State.NOISY]
    assert len(noisy) == 1
    assert noisy[0].sentence.startswith(f"{NAME} is too noisy to judge changes of 3 %: nights differ by ")
    assert noisy[0].sentence.endswith(" % are told (not repeated)")
    assert noisy[0].bar is not None
    assert noisy[0].bar > 0.1


def test_a_noisy_machine_still_tells_what_is_beyond_its_noise() -> None:
    (alert,) = told(verdicts(stepped(30, -0.5), noise=0.04))
    assert alert.state is State.ALERT
    assert night_of(alert) <= 33


def test_a_machine_change_is_no_regression() -> None:
    old, _ = simulated(flat(30), NOISE, np.random.default_rng(0))
    new, _ = simulated(0.8 * flat(30), NOISE, np.random.default_rng(1))
    moved = [Night(each.ordinal + 30, each.values, each.control, "another") for each in new]
    first, second = by_testbed(CELL, "output_tokens_per_s", True, [*moved, *old])
    assert (first.testbed, second.testbed) == ("simulated", "another")
    assert told(list(replay(first))) == told(list(replay(second))) == []
    start = replay(second)[0]
    assert start.state is State.LEARNING
    assert start.sentence == f"{NAME}: learning, night 1 of 10 on another"


def test_a_missing_week_changes_nothing() -> None:
    nights, reruns = simulated(flat(), NOISE, np.random.default_rng(0))
    kept = [index for index in range(60) if not 25 <= index < 32]
    assert told(play([nights[index] for index in kept], lambda at: reruns(kept[at]))) == []


def test_a_step_in_a_missing_week_is_dated_after_it() -> None:
    nights, reruns = simulated(stepped(28, -0.05), NOISE, np.random.default_rng(0))
    kept = [index for index in range(60) if not 25 <= index < 32]
    (alert,) = told(play([nights[index] for index in kept], lambda at: reruns(kept[at])))
    assert alert.change is not None
    assert alert.change.ordinal == FIRST_DAY + 32


@pytest.mark.parametrize("seed", SEEDS)
def test_two_steps_close_together_are_both_found(seed: int) -> None:
    found = told(verdicts(stepped(30, -0.05) * stepped(36, -0.05), seed))
    assert [each.state for each in found] == [State.ALERT, State.ALERT]
    assert 31 <= night_of(found[0]) <= 33
    assert 37 <= night_of(found[1]) <= 39
    assert len(found[1].open) == 2


def test_what_comes_back_is_an_improvement_and_closes_the_alert() -> None:
    around = stepped(30, -0.06)
    around[40:] = 1.0
    alert, better = told(verdicts(around))
    assert (alert.state, better.state) == (State.ALERT, State.IMPROVEMENT)
    assert better.sentence.startswith(f"improvement: {NAME} is ")
    assert better.sentence.endswith(f"[simulated]; back to where it was before {day(FIRST_DAY + 30)}")
    assert better.open == ()


def test_an_improvement_begins_a_new_level() -> None:
    """Losing it again is a regression, though the figure is what it was at first."""
    around = stepped(25, 0.06)
    around[45:] = 1.0
    better, worse = told(verdicts(around))
    assert (better.state, worse.state) == (State.IMPROVEMENT, State.ALERT)


def test_where_lower_is_better_more_is_worse() -> None:
    nights, reruns = simulated(stepped(30, 0.06), NOISE, np.random.default_rng(0))
    (alert,) = told(play(nights, reruns, series=Series(CELL, "ttft_s_p50", False, ())))
    assert alert.state is State.ALERT
    assert " % higher since " in alert.sentence


def test_an_acknowledged_change_is_not_alerted_again() -> None:
    (alert,) = told(verdicts(stepped(30, -0.05)))
    assert alert.change is not None
    found = verdicts(stepped(30, -0.05), acks=(Ack(alert.change.ordinal, "the new kernel is exact"),))
    assert told(found) == []
    (said,) = [each for each in found if each.state is State.ACKNOWLEDGED]
    assert said.sentence == f"{NAME}: a new level since 2026-01-31, acknowledged: the new kernel is exact"
    assert found[-1].open == ()


def test_after_an_acknowledgement_the_next_change_is_alerted() -> None:
    twice = stepped(30, -0.05) * stepped(45, -0.06)
    (alert,) = told(verdicts(twice, acks=(Ack(FIRST_DAY + 30, "known"),)))
    assert 46 <= night_of(alert) <= 48


def test_acknowledging_the_second_change_leaves_the_first_open() -> None:
    found = verdicts(stepped(25, -0.06) * stepped(45, -0.06), acks=(Ack(FIRST_DAY + 45, "known"),))
    (alert,) = told(found)
    assert night_of(alert) <= 27
    assert found[-1].open == alert.open != ()


def test_a_level_of_many_months_is_still_compared_with_its_beginning() -> None:
    """0.015 % a night, 4.9 % in all; what is remembered of them is bounded."""
    memory = Memory()
    nights, reruns = simulated(1 - 0.00015 * np.arange(330.0), 0.003, np.random.default_rng(0))
    found = []
    for at, night in enumerate(nights):
        after, verdict = step(memory, night, SERIES)
        if verdict.wants_rerun:
            after, verdict = step(memory, replace(night, rerun=reruns(at)), SERIES)
        memory = after
        found.append(verdict)
        assert len(memory.seen) <= 180
    (alert,) = told(found)
    assert alert.change is not None
    assert alert.change.shape is Shape.DRIFT
    assert alert.change.since <= FIRST_DAY + 10


def test_an_acknowledgement_a_day_off_is_still_meant_for_the_change() -> None:
    found = verdicts(stepped(30, -0.05), acks=(Ack(FIRST_DAY + 29, "merged the day before"),))
    assert told(found) == []


def test_unfit_nights_are_dropped() -> None:
    nights, _ = simulated(flat(), NOISE, np.random.default_rng(0))
    hot = [
        Night(each.ordinal, tuple(0.7 * value for value in each.values), (), "simulated", False, "throttled at 95 C")
        if 30 <= index < 40
        else each
        for index, each in enumerate(nights)
    ]
    found = replay(Series(CELL, "output_tokens_per_s", True, tuple(hot)))
    assert told(list(found)) == []
    assert found[30].state is State.UNFIT
    assert found[30].sentence == f"{NAME}: 2026-01-31 is not judged: throttled at 95 C"


def test_a_night_on_which_the_same_code_differs_from_itself_is_not_judged() -> None:
    nights, _ = simulated(flat(31), NOISE, np.random.default_rng(0))
    apart = Night(nights[30].ordinal, (800.0, 810.0, 805.0), (1.2,), "simulated")
    found = replay(Series(CELL, "output_tokens_per_s", True, (*nights[:30], apart)))[-1]
    assert found.state is State.UNFIT
    assert found.sentence.endswith("is not judged: the same code came out 20.0 % apart from itself")


def test_a_change_below_what_the_control_shows_is_not_alerted() -> None:
    """The nights are alike, but the same code against itself is 4 % apart: 5 % are nothing then."""
    rng = np.random.default_rng(0)
    nights, reruns = simulated(stepped(30, -0.05), NOISE, rng)
    ratios = np.exp(0.04 * rng.standard_normal((60, 3)))
    doubted = [
        Night(each.ordinal, each.values, tuple(ratios[index].tolist()), "simulated")
        for index, each in enumerate(nights)
    ]
    assert told(play(nights, reruns)) != []
    assert told(play(doubted, reruns)) == []


@pytest.mark.parametrize("metric", ["ttft_s_p99", "e2e_s_p95", "itl_s_max", "max_stall_s_p50"])
def test_tails_are_observed_only(metric: str) -> None:
    nights, reruns = simulated(stepped(30, 0.5), NOISE, np.random.default_rng(0))
    found = play(nights, reruns, series=Series(CELL, metric, False, ()))
    assert {each.state for each in found} == {State.OBSERVED}
    assert found[-1].sentence.endswith("observed only: the tail of a distribution rests on a few requests")


def test_tiny_cells_are_observed_only() -> None:
    nights, reruns = simulated(stepped(30, -0.5), NOISE, np.random.default_rng(0))
    found = play(nights, reruns, series=Series(CELL, "output_tokens_per_s", True, (), requests=4))
    assert {each.state for each in found} == {State.OBSERVED}
    assert found[-1].sentence.endswith("observed only: 4 requests a cell, 20 are needed")


def test_a_deterministic_series_tells_any_change_beyond_the_minimum() -> None:
    def nights(size: float) -> tuple[Night, ...]:
        return tuple(
            Night(FIRST_DAY + at, (100.0,) * 3, rerun=())
            if at < 30
            else Night(FIRST_DAY + at, (100 * (1 + size),) * 3, rerun=(100 * (1 + size),))
            for at in range(40)
        )

    (alert,) = told(list(replay(Series(CELL, "output_tokens_per_s", True, nights(-0.05)))))
    assert night_of(alert) == 31
    assert told(list(replay(Series(CELL, "output_tokens_per_s", True, nights(-0.02))))) == []


def test_levels_are_where_the_changes_were() -> None:
    nights, reruns = simulated(stepped(30, -0.05), NOISE, np.random.default_rng(0))
    with_reruns = tuple(replace(each, rerun=reruns(at)) for at, each in enumerate(nights))
    assert levels(Series(CELL, "output_tokens_per_s", True, with_reruns)) == (FIRST_DAY, FIRST_DAY + 30)


def test_the_last_verdict_is_the_judgement() -> None:
    nights, _ = simulated(flat(20), NOISE, np.random.default_rng(0))
    series = Series(CELL, "output_tokens_per_s", True, tuple(nights))
    assert judge(series) == replay(series)[-1]
    assert judge(SERIES) is None
