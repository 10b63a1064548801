"""A program's time line says what `place` says, layers that it does not visit included."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.core.ops import Program
from engines.core.pipeline import lower, place
from engines.core.placement import Placement
from engines.core.types import Batch, BlockChanges, Mode, Move, PrefillChunk, StepPlan, Tier, Unit

ACCEL = Batch((0, 1), (30, 40))
HOST = Batch((), (), (), (4,), (50,))
BOTH = Batch((0,), (30,), (), (4,), (50,))
STAGED = Batch((0,), (30,), (PrefillChunk(3, 13, 16, 8, True, Tier.HOST),), (4,), (50,))
BATCHES = (ACCEL, HOST, BOTH, STAGED)
SECONDS = st.one_of(st.sampled_from([0.0, 1e-5, 1e-4]), st.floats(1e-6, 1e-3))


def program(layers: int, mode: Mode, *batches: Batch, moves: int = 0) -> Program:
    out = Move(7, Tier.ACCEL, (0,), Tier.HOST, (0,), 16)
    plan = StepPlan(1, mode, batches, BlockChanges(), (out,) * moves)
    return lower(plan, Placement.all_on_accelerator(layers))


PROGRAMS = [
    *(program(layers, Mode.SEQUENTIAL, each) for layers, each in product((1, 2, 5, 32), BATCHES)),
    *(program(layers, Mode.ASYMMETRIC, *each) for layers, each in product((1, 2, 5, 32), product(BATCHES, BATCHES))),
    program(8, Mode.ASYMMETRIC, BOTH, HOST, moves=3),
]


@given(st.sampled_from(PROGRAMS), st.lists(SECONDS, min_size=20, max_size=20))
def test_it_says_what_placing_every_op_says(each: Program, some: list[float]) -> None:
    known = some[: len(each.tally)]
    free_s: dict[int, float] = {}
    place(each, [known[kind] for kind in each.group], 0.0, free_s)
    expected = [free_s.get(unit, 0.0) for unit in Unit]
    assert each.ends(known) == pytest.approx(expected, rel=1e-13, abs=0.0)


def test_most_layers_are_not_visited() -> None:
    """Else all of this would be in vain: an op that is looked at looks up its kind's seconds."""
    each = program(32, Mode.ASYMMETRIC, BOTH, HOST)
    known = Counted([1e-3 / (kind + 1) for kind in range(len(each.tally))])
    each.ends(known)
    assert known.asked < len(each.ops) / 3


class Counted(list[float]):
    asked = 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.asked += 1
        return super().__getitem__(index)
