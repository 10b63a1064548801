"""What overlaps with what: lowerings with host decodes as text, passes with cohorts as time lines."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from engines.apex.paper import decode_bound, gpu_over_cpu, mixed_bound
from engines.apex.situation import fitting
from engines.core.cohorts import run_pass
from engines.core.cost import Work, work_of
from engines.core.dealing import Pipeline, host_seconds
from engines.core.ops import Op, OpKind
from engines.core.pass_line import HostLine, PassLine
from engines.core.pipeline import durations, lower, makespan
from engines.core.placement import Placement
from engines.core.request import Request
from engines.core.roofline import Roofline
from engines.core.types import (
    AWAITED,
    STARTS,
    Batch,
    BlockChanges,
    CohortPlan,
    Mode,
    PrefillChunk,
    RequestSpec,
    StepPlan,
    Tier,
    Unit,
)

from .worlds import MACHINE, MODEL

LAYERS = 3
PLACEMENT = Placement.all_on_accelerator(LAYERS)
COSTS = Roofline(MODEL, MACHINE)
ACCEL = Batch((0, 1), (99, 199))
BOTH = Batch((0, 1), (99, 199), (), (2,), (49,))
HOST = Batch(host_slots=(3, 4), host_positions=(39, 59))


def plan(*batches: Batch, mode: Mode, cohorts: tuple[CohortPlan, ...] = ()) -> StepPlan:
    return StepPlan(1, mode, batches, BlockChanges(), cohorts=cohorts)


def text(planned: StepPlan, layers: int = 2) -> list[str]:
    ops = lower(planned, Placement.all_on_accelerator(layers)).ops
    return [f"{op.kind.value}{op.batch}@{op.layer} after {list(op.after)}" for op in ops]


def test_a_host_row_of_one_batch_is_attended_beside_the_others() -> None:
    assert text(plan(BOTH, mode=Mode.FULL_OVERLAP), layers=1) == [
        "first0@0 after []",
        "rows_to_host0@0 after [0]",
        "host_attention0@0 after [1]",
        "attention0@0 after [0]",
        "rows_to_accel0@0 after [2]",
        "last0@0 after [3, 4]",
    ]


def test_sequential_waits_for_the_accelerator_first() -> None:
    assert text(plan(BOTH, mode=Mode.SEQUENTIAL), layers=1) == [
        "first0@0 after []",
        "attention0@0 after [0]",
        "rows_to_host0@0 after [1]",
        "host_attention0@0 after [2]",
        "rows_to_accel0@0 after [3]",
        "last0@0 after [1, 4]",
    ]


def test_two_halves_take_turns() -> None:
    assert text(plan(ACCEL, HOST, mode=Mode.ASYMMETRIC)) == [
        "first0@0 after []",
        "first1@0 after []",
        "rows_to_host1@0 after [1]",
        "host_attention1@0 after [2]",
        "attention0@0 after [0]",
        "between0@0 after [4]",
        "rows_to_accel1@0 after [3]",
        "between1@0 after [6]",
        "rows_to_host1@1 after [7]",
        "host_attention1@1 after [8]",
        "attention0@1 after [5]",
        "last0@1 after [10]",
        "rows_to_accel1@1 after [9]",
        "last1@1 after [12]",
    ]


def test_a_prompt_bound_for_the_host_leaves_layer_by_layer_through_one_stage() -> None:
    chunk = PrefillChunk(5, 9, 16, 8, True, Tier.HOST)
    assert text(plan(Batch(prefills=(chunk,)), mode=Mode.GPU_ONLY)) == [
        "first0@0 after []",
        "prompt_to_accel0@0 after [0]",
        "attention0@0 after [0, 1]",
        "prompt_to_host0@0 after [0]",
        "between0@0 after [2, 3]",
        "prompt_to_accel0@1 after [4]",
        "attention0@1 after [4, 5]",
        "prompt_to_host0@1 after [4]",
        "last0@1 after [6, 7]",
    ]


def test_a_pipelined_layer_takes_what_the_formula_says() -> None:
    """Many layers, so that filling and draining the pipeline does not matter."""
    layers = 400
    first = Batch((0, 1), (4000, 6000), (), (2,), (700,))
    planned = plan(first, Batch(host_slots=(3, 4), host_positions=(900, 800)), mode=Mode.ASYMMETRIC)
    program = lower(planned, Placement.all_on_accelerator(layers))
    taken_s, _ = makespan(program, planned, COSTS)
    requests = [request(701), request(901), request(801)]
    work = work_of(Batch((0, 1), (4000, 6000)))
    pipeline = Pipeline.dealt(COSTS, work, [])
    for half, index in ((0, 0), (1, 1), (1, 2)):
        pipeline.halves[half].take(COSTS, [requests[index]], requests[index].known)
    assert taken_s / layers == pytest.approx(pipeline.layer_s, rel=0.02)


def request(known: int) -> Request:
    made = Request(RequestSpec(known, known, 10), known)
    made.tier = Tier.HOST
    return made


# --- passes with cohorts ----------------------------------------------------------------------------------------------


@dataclass
class Told:
    """A runner whose cohorts are ready when the script says so."""

    ready_at: Callable[[int, int], bool]
    lines: list[str] = field(default_factory=list)

    def gpu(self, kind: OpKind, layer: int, aboard: list[CohortPlan]) -> None:
        self.lines.append(f"{kind.value}@{layer} with {[cohort.cohort for cohort in aboard]}")

    def ready(self, cohort: CohortPlan, layer: int) -> bool:
        return self.ready_at(cohort.cohort, layer)

    def hand_over(self, cohort: CohortPlan, layer: int) -> None:
        self.lines.append(f"{cohort.cohort} to the host for {layer}")


def test_a_cohort_comes_aboard_where_it_is_parked_and_leaves_when_it_is_not_ready() -> None:
    told = Told(lambda cohort, layer: (cohort, layer) != (1, 2))
    cohorts = (CohortPlan(1, (7,), (5,), 1), CohortPlan(2, (8,), (6,), STARTS))
    answers, finished = run_pass(cohorts, LAYERS, told)  # type: ignore[arg-type]
    assert told.lines == [
        "first@0 with [2]",
        "2 to the host for 0",
        "attention@0 with []",
        "between@0 with [2]",
        "2 to the host for 1",
        "attention@1 with []",
        "between@1 with [1, 2]",
        "1 to the host for 2",
        "2 to the host for 2",
        "attention@2 with []",
        "last@2 with [2]",
    ]
    assert [(a.guard.cohort, a.guard.layer, a.ready) for a in answers] == [
        (2, 0, True),
        (1, 1, True),
        (2, 1, True),
        (1, 2, False),
        (2, 2, True),
    ]
    assert finished == (2,)


def fly(cohorts: tuple[CohortPlan, ...], host: HostLine, begin_s: float, batch: Batch = ACCEL) -> tuple[PassLine, int]:
    late = []
    line = PassLine(
        plan(batch, mode=Mode.FULL_OVERLAP, cohorts=cohorts), COSTS, host, begin_s, lambda *op: late.append(op)
    )
    answers, _ = run_pass(cohorts, LAYERS, line)
    return line, sum(answer.ready for answer in answers)


def test_a_lagging_cohort_never_delays_the_pass() -> None:
    """Its rows make linear parts no longer here; whether it is slow or fast does not matter then."""
    alone_s = makespan(lower(plan(ACCEL, mode=Mode.GPU_ONLY), PLACEMENT), plan(ACCEL, mode=Mode.GPU_ONLY), COSTS)[0]
    for context in (5, 5000):
        line, _ = fly((CohortPlan(1, (7,), (context,), STARTS),), HostLine(), 0.0)
        assert line.now_s == pytest.approx(alone_s, rel=0.01)


def test_slow_attention_advances_a_layer_per_pass() -> None:
    host, begin_s, layer = HostLine(), 0.0, STARTS
    context = 20_000  # a tenth of a second per layer; a pass takes some milliseconds
    passes = 0
    while layer < LAYERS:
        line, ready = fly((CohortPlan(1, (7,), (context,), layer),), host, begin_s)
        layer = max(layer, 0) + ready
        begin_s = line.now_s
        passes += 1
    assert host.free_s[Unit.CPU] == pytest.approx(LAYERS * COSTS.host_attention_s(1, context + 1), rel=0.2)
    assert passes > 10


def test_patience_is_what_a_pass_waits_at_most() -> None:
    lagging, _ = fly((CohortPlan(1, (7,), (20_000,), STARTS),), HostLine(), 0.0)
    impatient, ready = fly((CohortPlan(1, (7,), (20_000,), STARTS, 5000),), HostLine(), 0.0)
    assert ready == 0
    assert impatient.now_s == pytest.approx(lagging.now_s + 0.005)
    awaited, ready = fly((CohortPlan(1, (7,), (20_000,), STARTS, AWAITED),), HostLine(), 0.0)
    assert ready == LAYERS
    assert awaited.now_s > LAYERS * COSTS.host_attention_s(1, 20_001)


def test_a_pass_without_cohorts_aboard_costs_what_the_program_does() -> None:
    planned = plan(Batch((0,), (99,), (PrefillChunk(5, 9, 16, 8, True, Tier.HOST),)), mode=Mode.FULL_OVERLAP)
    program_s = max(0.0, makespan(lower(planned, PLACEMENT), planned, COSTS)[0])
    line, _ = fly((CohortPlan(1, (7,), (90_000,), 2),), _busy_until(1, 1e9), 0.0, planned.batches[0])
    assert line.now_s == pytest.approx(program_s)


def _busy_until(cohort: int, back_s: float) -> HostLine:
    host = HostLine()
    host.back_s[cohort] = back_s
    return host


# --- the arithmetic of the modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("r", "bound"), [(0.033, 63.6), (0.1, 23.1), (0.5, 7.5), (1.0, 6.0), (2**0.5, 5.83)])
def test_equation_6(r: float, bound: float) -> None:
    assert decode_bound(r) == pytest.approx(bound, rel=0.001)


def test_the_mixed_rule_without_prompts_is_equation_6() -> None:
    work = work_of(ACCEL)
    r = COSTS.accel_attention_s(work) / COSTS.linear_s(2)
    assert mixed_bound(COSTS, work) == pytest.approx(decode_bound(r))
    with_prompt = work_of(Batch((0, 1), (99, 199), (PrefillChunk(5, 9, 0, 200, True),)))
    assert mixed_bound(COSTS, with_prompt) > mixed_bound(COSTS, work)


def test_the_ratio_is_gpu_over_cpu() -> None:
    assert gpu_over_cpu(accel_rows=8, accel_s=1.0, host_rows=2, host_s=1.0) == 4.0


def test_as_many_as_fit_a_window() -> None:
    kv = [5, 15, 35, 65, 105]  # of none, one, ... requests with 10, 20, 30 and 40 tokens, after others with 5
    window_s = host_seconds(COSTS, 3, 60)
    assert fitting(COSTS, kv, window_s) == 3
    assert fitting(COSTS, kv, window_s * 0.999) == 2
    assert fitting(COSTS, kv, 0.0) == 0
    assert fitting(COSTS, [0], 1.0) == 0


def test_dealing_leaves_no_slack_negative() -> None:
    work = Work(tokens=40, decode_rows=40, decode_kv_tokens=40 * 500, sampled=40)
    candidates = [request(known) for known in range(20, 900, 20)]
    pipeline = Pipeline.dealt(COSTS, work, candidates)
    assert 0 < pipeline.host_rows < len(candidates)
    assert min(pipeline.slack(0), pipeline.slack(1)) >= 0.0


def test_durations_cover_every_kind_of_op() -> None:
    chunk = PrefillChunk(5, 9, 16, 8, True, Tier.HOST)
    planned = plan(Batch((0,), (9,), (chunk,), (2,), (49,)), mode=Mode.FULL_OVERLAP)
    program = lower(planned, PLACEMENT)
    unplaced = list(OpKind)[: list(OpKind).index(OpKind.READ_WEIGHTS)]
    assert {op.kind for op in program.ops} == set(unplaced) - {OpKind.MOVE}
    assert all(seconds > 0 for seconds in durations(program, planned, COSTS))
    assert isinstance(program.ops[0], Op)
