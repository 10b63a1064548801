"""Operators of a run: whether ops are told one by one or many at once, the same rows come out."""

from dataclasses import replace

import pytest

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.memory import ModelSizes
from engines.core.placement import Placement
from engines.core.roofline import Roofline
from engines.core.types import STARTS, Batch, CohortPlan, Mode, StepPlan, StepResult
from harness import operators
from harness.adapter import StepSight
from harness.operators import OperatorRecorder, sizes_told
from results.operator_rows import OperatorRow
from tests.backends.plans import COSTS, LAYERS, MACHINE, MODEL, PLACEMENT, PLANS, Trace
from tests.core.worlds import capabilities

SIZES = ModelSizes(
    layers=LAYERS,
    matrices=((100, 300), (100, 100), (100, 400), (200, 100)),
    bytes_per_parameter=2,
    kv_bytes_per_token=1000,
    kv_heads=5,
    head_dim=50,
    embedding_bytes=10_000,
    fixed_bytes=10_000,
    tied_head=False,
    head_bytes=10_000,
)
COHORTS = replace(PLANS["moves"], mode=Mode.ASYNC_OVERLAP, cohorts=(CohortPlan(1, (4, 5), (50, 60), STARTS, -1),))


def told(plans: list[StepPlan], *, one_by_one: bool) -> tuple[OperatorRow, ...]:
    recorder = OperatorRecorder(SIZES, Trace())
    watched = {"sink": recorder} if one_by_one else {"alike": recorder.alike}
    executor = SimExecutor(capabilities(64, 8), PLACEMENT, COSTS, VirtualClock(), **watched)
    for plan in plans:
        recorder.step(StepSight(plan, executor.run(plan), 0.0, 0, 0, 0, 0))
    return recorder.rows()


COHORTS_ALONE = replace(COHORTS, batches=(Batch(),), moves=())  # nothing is sampled but what lands


@pytest.mark.parametrize("planned", [*PLANS.values(), COHORTS, COHORTS_ALONE], ids=[*PLANS, "cohorts", "cohorts alone"])
def test_one_by_one_or_many_at_once(planned: StepPlan) -> None:
    plans = [planned, PLANS["mixed"], planned]
    apart, together = told(plans, one_by_one=True), told(plans, one_by_one=False)
    assert [(row.operator, row.unit, row.ops) for row in apart] == [
        (row.operator, row.unit, row.ops) for row in together
    ]
    assert [row.seconds for row in apart] == pytest.approx([row.seconds for row in together])
    assert [row.bytes for row in apart] == pytest.approx([row.bytes for row in together])


def test_rows_by_hand() -> None:
    """Two steps of three layers: 300 tokens of KV, all weights and the head; then the same once more."""
    rows = {(row.operator, row.unit): row for row in told([PLANS["decodes"]] * 2, one_by_one=False)}
    qkv, rest = 60_000, 20_000 + 80_000 + 40_000
    assert {key: (row.ops, row.bytes) for key, row in rows.items()} == {
        ("qkv", "GPU"): (2, 2 * qkv),
        ("attention", "GPU"): (6, 6 * 300 * 1000),
        ("output+up+down+qkv", "GPU"): (4, 4 * (qkv + rest)),
        ("output+up+down+head", "GPU"): (2, 2 * (rest + 10_000)),
    }
    assert rows["attention", "GPU"].seconds == pytest.approx(6 * (1e-3 + 300 * 1000 / 1e8))


def test_the_longest_comes_first() -> None:
    seconds = [row.seconds for row in told([PLANS["mixed"], PLANS["moves"]], one_by_one=False)]
    assert seconds == sorted(seconds, reverse=True)


def test_programs_that_come_and_go_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [*PLANS.values()] * 3
    before = told(plans, one_by_one=False)
    monkeypatch.setattr(operators, "MOST_KEPT", 2)
    after = told(plans, one_by_one=False)
    assert [(row.operator, row.ops) for row in after] == [(row.operator, row.ops) for row in before]
    assert [row.bytes for row in after] == pytest.approx([row.bytes for row in before])


def test_ops_go_on_to_the_timeline() -> None:
    trace = Trace()
    recorder = OperatorRecorder(SIZES, trace)
    executor = SimExecutor(capabilities(64, 8), PLACEMENT, COSTS, VirtualClock(), recorder)
    result: StepResult = executor.run(PLANS["decodes"])
    assert len(trace.rows) == result.units.ops == 2 * LAYERS + 1


def test_bytes_are_of_the_model_whose_seconds_are_told() -> None:
    """A small model in a large one's proportions: matrices, KV and head of the large one, layers of the small one."""
    large = replace(
        MODEL, matrices=((8, 24), (8, 8), (8, 32), (16, 8)), kv_bytes_per_token=4000, head_parameters=7, tokens_each=3
    )
    sizes = sizes_told(SIZES, Roofline(large, MACHINE), Placement.all_on_accelerator(LAYERS))
    assert (sizes.layers, sizes.matrices, sizes.kv_bytes_per_token, sizes.head_bytes) == (
        LAYERS,
        large.matrices,
        12_000,
        14,
    )
    assert sizes_told(SIZES, None, PLACEMENT) == SIZES


def test_compressed_kv_is_smaller() -> None:
    compressed = replace(PLACEMENT, compressed_kv=True)
    assert sizes_told(SIZES, None, compressed).kv_bytes_per_token == SIZES.kv_bytes(packed=True) < 1000
