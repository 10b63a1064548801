"""`serve` with engines that follow a script: who is sent when, what is recorded, and when it gives up."""

import pytest

from engines.core.clock import VirtualClock
from harness.driver import IDLE_POLL_S
from tests.harness_loop.scripted import PolledEngine, ScriptedEngine, closed_loop, open_loop, run, workload
from workloads import Request


def test_open_loop_arrivals_are_kept() -> None:
    served = run(open_loop(0.0, 1.0, 1.0, 5.5), ScriptedEngine(VirtualClock()))
    assert served.column("arrival_s") == [0.0, 1.0, 1.0, 5.5]
    assert served.column("dispatch_s") == [0.0, 1.0, 1.0, 5.5]
    assert served.column("first_scheduled_s") == [0.0, 1.0, 1.0, 5.5]
    assert served.column("last_token_s") == pytest.approx([0.1, 1.1, 1.1, 5.6])
    assert served.column("status") == ["finished"] * 4


def test_what_comes_during_a_step_is_sent_late_and_counts_from_its_arrival() -> None:
    served = run(open_loop(0.0, 0.25, 0.5), ScriptedEngine(VirtualClock(), step_s=1.0))
    assert served.column("arrival_s") == [0.0, 0.25, 0.5]
    assert served.column("dispatch_s") == [0.0, 1.0, 1.0]
    assert served.column("first_token_s") == [1.0, 2.0, 2.0]


def test_a_request_reaches_the_engine_as_the_workload_has_it() -> None:
    requests = (Request(0, 0.0, 3, 2), Request(1, 0.0, 4, 5))
    served = run(workload(*requests), ScriptedEngine(VirtualClock()), {0: [7, 8, 9], 1: [1, 2, 3, 4]})
    sent = [submission for _, submission in served.engine.submissions]
    assert [(each.request_id, each.prompt_tokens, each.max_new_tokens) for each in sent] == [(0, 3, 2), (1, 4, 5)]
    assert [list(each.token_ids) for each in sent] == [[7, 8, 9], [1, 2, 3, 4]]
    assert all(each.stop_ids == frozenset() for each in sent), "lengths are the workload's, never the content's"
    assert served.column("output_tokens") == served.column("asked_tokens") == [2, 5]


def test_without_prompts_only_lengths_are_sent() -> None:
    served = run(open_loop(0.0), ScriptedEngine(VirtualClock()))
    [(_, submission)] = served.engine.submissions
    assert (submission.prompt_tokens, list(submission.token_ids)) == (10, [])


def test_refusals_are_kept_with_their_reasons() -> None:
    served = run(open_loop(0.0, 0.0, 1.0), ScriptedEngine(VirtualClock(), refuses={1: "it is too long"}))
    assert served.column("status") == ["finished", "refused", "finished"]
    assert served.column("reason") == ["", "it is too long", ""]
    refused = served.rows[1]
    assert (refused["first_scheduled_s"], refused["first_token_s"], refused["last_token_s"]) == (None, None, None)
    assert (refused["output_tokens"], refused["token_times_s"], refused["tier"]) == (0, [], "")
    assert served.rows[0]["tier"] == "accel"


@pytest.mark.parametrize("users", [1, 2, 5])
def test_a_closed_loop_goes_on_after_refusals(users: int) -> None:
    refuses = dict.fromkeys((0, 3, 4, 11), "no")
    served = run(closed_loop(12, users), ScriptedEngine(VirtualClock(), refuses=refuses))
    assert len(served.rows) == 12
    assert [number for number, row in sorted(served.rows.items()) if row["status"] == "refused"] == [0, 3, 4, 11]


def test_a_run_in_which_everything_is_refused_ends() -> None:
    refuses = dict.fromkeys(range(6), "no")
    assert run(closed_loop(6, 2), ScriptedEngine(VirtualClock(), refuses=refuses)).column("status") == ["refused"] * 6
    assert run(open_loop(0.0, 3.0), ScriptedEngine(VirtualClock(), refuses=refuses)).column("dispatch_s") == [0.0, 3.0]


@pytest.mark.parametrize("users", [1, 3, 8, 40])
def test_closed_loop_users_never_exceed_their_number(users: int) -> None:
    served = run(closed_loop(20, users, output_tokens=3), ScriptedEngine(VirtualClock()))
    assert served.engine.most_in_flight == min(users, 20)
    assert len(served.rows) == 20
    waves = -(-20 // users)
    assert max(served.column("last_token_s")) == pytest.approx(waves * 3 * 0.1), "and each of them is kept busy"


def test_closed_loop_users_think() -> None:
    served = run(closed_loop(6, 2, think_s=2.0), ScriptedEngine(VirtualClock()))
    assert served.column("arrival_s") == pytest.approx([0.0, 0.0, 2.1, 2.1, 4.2, 4.2]), "not before their first request"


def test_a_later_turn_comes_after_the_answer_and_a_thought() -> None:
    turns = (
        Request(0, 0.0, 5, 4, session=0),
        Request(1, 0.1, 5, 1, session=1),
        Request(2, 1.5, 9, 2, session=0, turn=1, think_s=1.5),
        Request(3, 2.0, 9, 1, session=0, turn=2, think_s=0.5),
    )
    served = run(workload(*turns), ScriptedEngine(VirtualClock(), step_s=1.0))
    assert served.rows[0]["last_token_s"] == 4.0
    assert served.rows[2]["arrival_s"] == 4.0 + 1.5
    assert served.rows[3]["arrival_s"] == served.rows[2]["last_token_s"] + 0.5
    assert served.rows[1]["last_token_s"] == 2.0, "other conversations do not wait"


def test_a_refused_turn_lets_the_conversation_go_on() -> None:
    turns = tuple(Request(turn, float(turn), 5, 1, session=0, turn=turn, think_s=1.0) for turn in range(3))
    served = run(workload(*turns), ScriptedEngine(VirtualClock(), refuses={1: "no"}))
    assert served.column("status") == ["finished", "refused", "finished"]
    assert served.rows[2]["arrival_s"] == pytest.approx(served.rows[1]["dispatch_s"] + 1.0)


def test_a_third_party_engine_is_polled_and_arrivals_are_kept() -> None:
    arrivals_s = (0.0, 0.01, 0.0101, 0.5)
    served = run(open_loop(*arrivals_s, output_tokens=2), PolledEngine(VirtualClock(), step_s=0.02))
    assert served.column("dispatch_s") == pytest.approx(arrivals_s), "however long it takes, nobody waits for it"
    assert all(row["status"] == "finished" for row in served.rows.values())
    assert served.rows[3]["last_token_s"] == pytest.approx(0.54, abs=3 * IDLE_POLL_S)


def test_an_engine_that_loses_a_request_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="requests are still expected"):
        run(open_loop(0.0, 1.0), ScriptedEngine(VirtualClock(), forgets=frozenset({0})))


def test_progress_is_told_when_requests_end() -> None:
    served = run(open_loop(0.0, 0.0, 1.0, output_tokens=2), ScriptedEngine(VirtualClock()))
    assert [ended for ended, _ in served.progress] == [2, 3]
    assert [time_s for _, time_s in served.progress] == pytest.approx([0.2, 1.2])


def test_warm_up_is_by_order_of_arrival() -> None:
    served = run(closed_loop(6, 2), ScriptedEngine(VirtualClock(), refuses={1: "no"}), warmup_requests=3)
    assert served.column("warmup") == [True, True, True, False, False, False]
