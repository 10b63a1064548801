"""Plans written by hand, and a cost table whose numbers are round: tests of what ops take, without a scheduler."""

from dataclasses import dataclass, field

from engines.core.ops import Op
from engines.core.placement import Placement
from engines.core.roofline import MachineRates, ModelCosts, Roofline
from engines.core.types import Batch, BlockChanges, Mode, Move, PrefillChunk, StepPlan, Tier

LAYERS = 3
PLACEMENT = Placement.all_on_accelerator(LAYERS)
MODEL = ModelCosts(
    layers=LAYERS,
    pre_parameters=1_000_000,
    post_parameters=3_000_000,
    head_parameters=500_000,
    bytes_per_parameter=2,
    kv_bytes_per_token=1000,
    attention_flops_per_pair=100,
    query_bytes_per_row=500,
)
MACHINE = MachineRates(
    gemm_bytes_per_s=1e9,
    gemm_flops_per_s=1e15,  # memory alone decides what a linear layer takes
    gemm_exponent=4.0,
    gemm_fixed_s=0.0,
    attention_bytes_per_s=1e8,
    attention_fixed_s=1e-3,
    host_attention_bytes_per_s=1e8,
    host_attention_fixed_s=1e-3,
    h2d_bytes_per_s=1e9,
    d2h_bytes_per_s=5e8,
    link_latency_s=1e-3,
    step_overhead_s=5e-3,
)
COSTS = Roofline(MODEL, MACHINE)
OVERHEAD_S = MACHINE.step_overhead_s

OUT = Move(8, Tier.ACCEL, (0, 1), Tier.HOST, (0,), 20)
BACK = Move(9, Tier.HOST, (1,), Tier.ACCEL, (2, 3, 4), 40)

DECODES = Batch(decode_slots=(0, 1), decode_positions=(99, 199))
PREFILL = Batch(prefills=(PrefillChunk(2, 7, 0, 30, False), PrefillChunk(3, 8, 10, 20, True)))
MIXED = Batch((0, 1), (99, 199), PREFILL.prefills)


def plan(batch: Batch, *moves: Move, step: int = 1) -> StepPlan:
    return StepPlan(step, Mode.GPU_ONLY, (batch,), BlockChanges(), moves)


PLANS = {
    "decodes": plan(DECODES),
    "prefills": plan(PREFILL),
    "mixed": plan(MIXED),
    "moves": plan(DECODES, OUT, BACK),
}


@dataclass
class Trace:
    """What an interpreter reports of each op: (step, op, start, end)."""

    rows: list[tuple[int, Op, float, float]] = field(default_factory=list)

    def __call__(self, step: int, op: Op, start_s: float, end_s: float) -> None:
        self.rows.append((step, op, start_s, end_s))
