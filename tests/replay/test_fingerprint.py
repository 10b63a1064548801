"""The fingerprint of a plan covers every number in it: change any one and it differs."""

from collections.abc import Iterator
from dataclasses import fields, replace
from enum import Enum
from typing import Any

import pytest

from engines.core.placement import Placement
from engines.core.types import (
    Batch,
    BlockChanges,
    CohortPlan,
    Mode,
    Move,
    PrefillChunk,
    SlotStart,
    StepPlan,
    Tier,
)
from harness.journal import fingerprint

PLAN = StepPlan(
    step=7,
    mode=Mode.GPU_ONLY,
    batches=(
        Batch((1, 2), (30, 40), (PrefillChunk(3, 13, 16, 8, True),), (4,), (50,)),
        Batch(decode_slots=(5,), decode_positions=(60,)),
    ),
    changes=BlockChanges((6,), (SlotStart(6, 16, Tier.HOST),), (1, 3), (70, 80)),
    moves=(Move(16, Tier.HOST, (0,), Tier.ACCEL, (1, 2), 90),),
    cohorts=(CohortPlan(1, (4,), (50,), 2),),
    preempted=(17,),
    admitted=(13,),
)


def variants(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Everything that is like `value` but for one thing, with the path of that thing."""
    match value:
        case Enum():
            yield from ((where, other) for other in type(value) if other is not value)
        case None:
            yield where, Placement.all_on_accelerator(2)
        case bool():
            yield where, not value
        case int():
            yield where, value + 1
        case CohortPlan():
            for name in value._fields:
                for path, other in variants(getattr(value, name), f"{where}.{name}"):
                    yield path, value._replace(**{name: other})
        case tuple():
            if value:
                yield f"{where}: shorter", value[:-1]
            for index, element in enumerate(value):
                for path, other in variants(element, f"{where}[{index}]"):
                    yield path, (*value[:index], other, *value[index + 1 :])
        case _:
            for field in fields(value):
                for path, other in variants(getattr(value, field.name), f"{where}.{field.name}"):
                    yield path, replace(value, **{field.name: other})


@pytest.mark.parametrize(("path", "other"), [pytest.param(*each, id=each[0]) for each in variants(PLAN, "plan")])
def test_every_number_counts(path: str, other: StepPlan) -> None:
    assert fingerprint(other) != fingerprint(PLAN), path


def test_equal_plans_have_equal_fingerprints() -> None:
    assert fingerprint(replace(PLAN, step=PLAN.step)) == fingerprint(PLAN)
    assert len(fingerprint(PLAN)) == 16


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    """Journals are compared across machines and versions; change FORMAT when this changes."""
    assert fingerprint(StepPlan(1, Mode.GPU_ONLY, (Batch(),), BlockChanges())) == "1d371d1b8db43525"
