"""What the ops of a pass with cohorts take together on a time line, worked out from its answers when it is over.

To be told of hundreds of ops one by one costs a simulator a quarter of its speed; who came aboard where says the same.
"""

from collections import Counter
from collections.abc import Sequence

from engines.core.cost import CostTable, Work, link_unit, work_of
from engines.core.ops import AlikeOps, Op, OpKind
from engines.core.types import STARTS, CohortPlan, Guard, GuardAnswer, StepPlan, Unit

OPS = {
    kind: Op(0, kind, unit, 0, ())
    for kind, unit in (
        (OpKind.FIRST, Unit.GPU),
        (OpKind.ATTENTION, Unit.GPU),
        (OpKind.BETWEEN, Unit.GPU),
        (OpKind.LAST, Unit.GPU),
        (OpKind.ROWS_TO_HOST, Unit.D2H),
        (OpKind.HOST_ATTENTION, Unit.CPU),
        (OpKind.ROWS_TO_ACCEL, Unit.H2D),
        (OpKind.PROMPT_TO_HOST, Unit.D2H),
        (OpKind.PROMPT_TO_ACCEL, Unit.H2D),
    )
}

NOTHING = Work()


def tally_pass(plan: StepPlan, answers: Sequence[GuardAnswer], layers: int, costs: CostTable, alike: AlikeOps) -> None:
    """The same ops and seconds as PassLine reports, a kind at a time."""
    work, cohorts = work_of(plan.batches[0]), {each.cohort: each for each in plan.cohorts}
    for index, move in enumerate(plan.moves):
        alike(Op(0, OpKind.MOVE, link_unit(move), -1, (), move=index), 1, costs.move_s(move), work)
    boarded = [answer.guard for answer in answers if answer.ready]
    _on_accelerator(work, plan.cohorts, boarded, layers, costs, alike)
    handed = Counter([guard.cohort for guard in boarded if guard.layer < layers - 1])
    handed.update([each.cohort for each in plan.cohorts if each.parked_layer == STARTS])
    _handed_over([(cohorts[cohort], times) for cohort, times in handed.items()], costs, alike)
    if tokens := work.host_prefill_tokens:
        alike(OPS[OpKind.PROMPT_TO_HOST], layers, layers * costs.kv_to_host_s(tokens), work)
    if tokens := work.host_prefill_context:
        alike(OPS[OpKind.PROMPT_TO_ACCEL], layers, layers * costs.kv_to_accel_s(tokens), work)


def _on_accelerator(
    work: Work,
    cohorts: Sequence[CohortPlan],
    boarded: Sequence[Guard],
    layers: int,
    costs: CostTable,
    alike: AlikeOps,
) -> None:
    """Rows that are aboard share the matrices, and what is sampled after the last layer."""
    rows, own = {each.cohort: len(each.slots) for each in cohorts}, costs.gemm_rows(work)
    aboard = [0] * layers
    for guard in boarded:
        aboard[guard.layer] += rows[guard.cohort]
    starting = own + sum([len(each.slots) for each in cohorts if each.parked_layer == STARTS])
    landing = aboard.pop()
    if starting:
        alike(OPS[OpKind.FIRST], 1, costs.pre_attention_s(starting), work)
    if (attention_s := costs.accel_attention_s(work)) > 0.0:
        alike(OPS[OpKind.ATTENTION], layers, layers * attention_s, work)
    for joined, times in Counter(aboard).items():
        if own + joined:
            alike(OPS[OpKind.BETWEEN], times, times * costs.linear_s(own + joined), work)
    if own + landing:
        sampled = work.sampled + landing
        last_s = costs.post_attention_s(own + landing) + costs.head_s(sampled)
        alike(OPS[OpKind.LAST], 1, last_s, Work(sampled=sampled))


def _handed_over(handed: Sequence[tuple[CohortPlan, int]], costs: CostTable, alike: AlikeOps) -> None:
    """Dozens of cohorts, and how often each. Bytes go with rows: one op may have them all, and the others none."""
    ops = all_rows = all_kv_tokens = 0
    down_s = attention_s = up_s = 0.0
    for cohort, times in handed:
        rows = len(cohort.slots)
        kv_tokens = sum(cohort.positions) + rows
        ops += times
        all_rows += times * rows
        all_kv_tokens += times * kv_tokens
        down_s += times * costs.rows_to_host_s(rows)
        attention_s += times * costs.host_attention_s(rows, kv_tokens)
        up_s += times * costs.rows_to_accel_s(rows)
    if not ops:
        return
    work = Work(host_rows=all_rows, host_kv_tokens=all_kv_tokens)
    kinds = (OpKind.ROWS_TO_HOST, OpKind.HOST_ATTENTION, OpKind.ROWS_TO_ACCEL)
    for kind, seconds in zip(kinds, (down_s, attention_s, up_s), strict=True):
        alike(OPS[kind], 1, seconds, work)
        alike(OPS[kind], ops - 1, 0.0, NOTHING)
