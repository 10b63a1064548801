"""The example scheduler in random worlds: what it decides is legal, everybody gets their tokens, the short go first."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_scheduler_properties import Case, cases, run
from tests.core.worlds import world
from tests.plugins.test_examples import EXAMPLES


def _example() -> ModuleType:
    """Not installed here, so it is read from where it lies."""
    spec = importlib.util.spec_from_file_location("shortest_first", EXAMPLES / "shortest_first" / "shortest_first.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


ShortestFirst: Any = _example().ShortestFirst
policies = st.builds(ShortestFirst, prompt_tokens=st.integers(1, 80))


@settings(max_examples=500, deadline=None)
@given(st.builds(lambda case, policy: replace(case, policy=policy), cases, policies))
def test_every_decision_is_legal_and_nobody_is_preempted(case: Case) -> None:
    """The core checks each step, and every invariant is checked after it."""
    w, refused, aborted = run(case)
    for request_id, arrival in enumerate(case.arrivals):
        if request_id not in refused | aborted:
            assert w.delivered[request_id] == arrival.output
    assert not any(plan.preempted for plan in w.plans)


def test_a_short_prompt_overtakes_a_long_one() -> None:
    w = world(accel_blocks=40, max_batch_tokens=32, policy=ShortestFirst())
    w.submit(0, 300, 2)
    w.step()
    w.submit(1, 20, 1)
    w.step()
    assert w.finished == [1]
    assert w.plans[1].admitted == (1,)


@pytest.mark.parametrize(("prompt_tokens", "expected"), [(2048, 31), (8, 8)])
def test_prompts_leave_decodes_the_room_they_are_told_to(prompt_tokens: int, expected: int) -> None:
    w = world(accel_blocks=40, max_batch_tokens=32, policy=ShortestFirst(prompt_tokens=prompt_tokens))
    w.submit(0, 20, 10)
    w.step()
    w.submit(1, 300, 2)
    w.step()
    (batch,) = w.plans[1].batches
    assert (len(batch.decode_slots), batch.prefill_tokens) == (1, expected)


def test_alone_a_prompt_takes_the_whole_step() -> None:
    w = world(accel_blocks=40, max_batch_tokens=32, policy=ShortestFirst(prompt_tokens=8))
    w.submit(0, 300, 2)
    w.step()
    (batch,) = w.plans[0].batches
    assert batch.prefill_tokens == 32
