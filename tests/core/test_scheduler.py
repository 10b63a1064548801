"""The scheduler's rules, one by one, in virtual time."""

import pytest

from engines.core.errors import IntegrityError, PolicyError
from engines.core.policy import BatchDecision, Decision, Prefill, View
from engines.core.roofline import Roofline
from engines.core.scheduler import EngineCore
from engines.core.types import Limits, Mode, RequestSpec, StepResult, Tier
from engines.gpu_only.policy import GpuOnly

from .worlds import MACHINE, MODEL, capabilities, world


def test_one_request_prefills_in_chunks_and_then_decodes() -> None:
    w = world(accel_blocks=20, max_batch_tokens=64)
    w.submit(7, prompt=150, output=3)
    w.run_out()
    chunks = [[(c.start, c.length, c.samples) for c in plan.batches[0].prefills] for plan in w.plans]
    assert chunks == [[(0, 64, False)], [(64, 64, False)], [(128, 22, True)], [], []]
    assert [plan.batches[0].decode_positions for plan in w.plans[3:]] == [(150,), (151,)]
    assert w.delivered == {7: 3}
    assert w.finished == [7]


def test_decodes_come_before_prefills_under_the_token_budget() -> None:
    w = world(accel_blocks=40, max_batch_tokens=32)
    w.submit(0, prompt=20, output=10)
    w.step()
    w.submit(1, prompt=100, output=2)
    w.step()
    batch = w.plans[-1].batches[0]
    assert len(batch.decode_slots) == 1
    assert batch.prefill_tokens == 31


def test_the_last_token_needs_no_kv() -> None:
    """16 prompt + 17 new tokens store 32: two blocks are enough, and one more token is refused."""
    assert world(accel_blocks=2).submit(0, prompt=16, output=17)
    refusal = world(accel_blocks=2).core.submit(RequestSpec(0, 16, 18))
    assert refusal is not None
    assert "33 tokens (3 blocks of 16)" in refusal.reason
    assert "holds 32 (2 blocks)" in refusal.reason


def test_whoever_can_never_fit_is_refused_and_the_others_run() -> None:
    w = world(accel_blocks=4)
    assert not w.submit(0, prompt=400, output=1)
    assert w.submit(1, prompt=30, output=5)
    w.run_out()
    assert w.finished == [1]


def test_the_youngest_is_preempted_and_recomputed() -> None:
    w = world(accel_blocks=6, max_batch=2)
    w.submit(0, prompt=40, output=40)
    w.submit(1, prompt=40, output=20)
    w.run_out()
    assert any(plan.preempted == (1,) for plan in w.plans)
    assert all(0 not in plan.preempted for plan in w.plans)
    assert w.delivered == {0: 40, 1: 20}


def test_swap_keeps_the_kv_and_moves_it_back() -> None:
    w = world(accel_blocks=6, max_batch=2, host_blocks=8, policy=GpuOnly(preemption="swap"))
    w.submit(0, prompt=40, output=40)
    w.submit(1, prompt=40, output=20)
    w.run_out()
    moves = [move for plan in w.plans for move in plan.moves]
    assert {(move.source, move.target) for move in moves} == {(Tier.ACCEL, Tier.HOST), (Tier.HOST, Tier.ACCEL)}
    assert len({move.tokens for move in moves}) * 2 == len(moves), "what goes out comes back, whole"
    prefilled = [chunk.length for plan in w.plans for chunk in plan.batches[0].prefills if chunk.request_id == 1]
    assert sum(prefilled) == 40, "a swapped request is not prefilled again"
    assert w.delivered == {0: 40, 1: 20}


def test_swap_falls_back_to_recompute_when_the_host_is_full() -> None:
    w = world(accel_blocks=6, max_batch=2, host_blocks=0, policy=GpuOnly(preemption="swap"))
    w.submit(0, prompt=40, output=40)
    w.submit(1, prompt=40, output=20)
    w.run_out()
    assert not any(plan.moves for plan in w.plans)
    assert w.delivered == {0: 40, 1: 20}


def test_abort_while_running_and_while_waiting_leaks_nothing() -> None:
    w = world(accel_blocks=6, max_batch=1)
    w.submit(0, prompt=40, output=40)
    w.submit(1, prompt=40, output=20)
    w.step()
    assert w.core.abort(0)
    assert w.core.abort(1)
    assert not w.core.abort(1)
    w.core.check_integrity()
    assert w.step() is None
    assert len(w.core.kv.pools[Tier.ACCEL].free) == 6


def test_a_stop_token_ends_a_request_early() -> None:
    w = world(accel_blocks=6)
    w.core.submit(RequestSpec(0, 5, 10, stop_ids=frozenset({0})))  # the simulator's tokens are all 0
    w.run_out()
    assert w.delivered == {0: 1}


def test_admission_waits_for_the_whole_prompt_unless_told_otherwise() -> None:
    for admit, admitted_in_step_2 in (("prompt", False), ("chunk", True)):
        w = world(accel_blocks=10, max_batch_tokens=64, policy=GpuOnly(admit=admit))  # type: ignore[arg-type]
        w.submit(0, prompt=64, output=60)
        w.step()
        w.submit(1, prompt=120, output=2)
        w.step()
        assert bool(w.plans[-1].batches[0].prefills) is admitted_in_step_2


class _JumpsTheQueue(GpuOnly):
    def decide(self, view: View) -> Decision:
        youngest = view.waiting[-1]
        return Decision(Mode.GPU_ONLY, (BatchDecision(prefills=[Prefill(youngest, 1, Tier.ACCEL)]),))


class _Overspends(GpuOnly):
    def decide(self, view: View) -> Decision:
        first = view.waiting[0]
        return Decision(Mode.GPU_ONLY, (BatchDecision(prefills=[Prefill(first, first.pending, Tier.ACCEL)]),))


class _DoesNothing(GpuOnly):
    def decide(self, view: View) -> Decision:
        return Decision(Mode.GPU_ONLY, (BatchDecision(),))


@pytest.mark.parametrize(
    ("policy", "prompt", "message"),
    [
        (_JumpsTheQueue(), 10, "before their elders"),
        (_Overspends(), 100, "100 tokens in a step of 64"),
        (_DoesNothing(), 10, "decided an empty step"),
    ],
)
def test_the_core_checks_what_a_policy_decides(policy: GpuOnly, prompt: int, message: str) -> None:
    w = world(accel_blocks=12, policy=policy)
    for request_id in range(2):
        assert w.submit(request_id, prompt, output=1)
    with pytest.raises(PolicyError, match=message):
        w.core.schedule(0.0)


def test_a_result_with_the_wrong_number_of_tokens_is_noticed() -> None:
    core = EngineCore(GpuOnly(), capabilities(4), Limits(2, 32), Roofline(MODEL, MACHINE))
    core.submit(RequestSpec(0, 5, 2))
    plan = core.schedule(0.0)
    assert plan is not None
    with pytest.raises(IntegrityError, match="1 rows sample"):
        core.commit(plan, StepResult((), 0.0, 0.0))


def test_schedule_and_commit_alternate() -> None:
    core = EngineCore(GpuOnly(), capabilities(4), Limits(2, 32), Roofline(MODEL, MACHINE))
    core.submit(RequestSpec(0, 5, 2))
    plan = core.schedule(0.0)
    assert plan is not None
    with pytest.raises(RuntimeError, match="commit the last plan"):
        core.schedule(0.0)
    core.commit(plan, StepResult((1,), 0.0, 0.0))
    with pytest.raises(RuntimeError, match="not the one in progress"):
        core.commit(plan, StepResult((1,), 0.0, 0.0))
