"""`harness bench hybrid`: does the running engine reach what its modes promise?

Steady decoding on an emulated T4 and A10 (tiny-30m in the proportions of Llama-2-7B, real tensors and threads), host
queues shallow to deep, contexts short and long. Every mode as a ratio over GPU-only, beside the ideal model's ratio and
the simulator's at the same pace; then both selectors against the best forced mode. Last a sweep of r and N_G/N_C:
asymmetric pipelining has to beat GPU-only where equation 6 says so. A row whose ops were late is marked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from engines.apex.paper import decode_bound
from engines.apex.policy import Apex
from engines.core.policy import Policy
from engines.core.types import Mode
from engines.model.config import load_config
from harness.audit import MOST_OVERRUNS
from harness.ideal import Ideal
from harness.paced_bed import PacedBed
from harness.steady import Machine, Rate, SimBed, State, steady_rate

MODEL = "tiny-30m"
T4 = Machine("t4_g4dn_4xlarge", model=MODEL, time_scale=8.0, tokens_each=10)
A10 = Machine("a10", model=MODEL, time_scale=14.0, tokens_each=10)
STATES = (
    (T4, State(500, 4, 4)),
    (T4, State(500, 4, 32)),
    (T4, State(500, 4, 128)),
    (T4, State(1500, 8, 16)),
    (T4, State(1500, 8, 64)),
    (A10, State(500, 8, 16)),
    (A10, State(1500, 16, 64)),
)
FORCED: dict[str, Policy] = {
    Mode.GPU_ONLY.value: Apex(mode="gpu_only"),
    Mode.ASYMMETRIC.value: Apex(mode="asymmetric"),
    Mode.ASYNC_OVERLAP.value: Apex(mode="async_overlap"),
    Mode.FULL_OVERLAP.value: Apex(mode="full_overlap"),
}
SELECTORS: dict[str, Policy] = {"paper": Apex(selector="paper"), "predicted": Apex()}
STEPS = (10, 24)  # of a model of 8 layers: cohorts come around three times
# r from 0.2 to 1, N_G/N_C on both sides of the bound; short contexts, so that a half may hold a part of the queue.
SWEEP = tuple((State(250, rows, 64), speed) for rows in (8, 24, 64) for speed in (2.0, 0.6, 0.125))
WINS = 1.005


@dataclass(frozen=True, slots=True)
class Row:
    """Ratios are over GPU-only in the same state; `late`: share of late ops, GPU-only's or its own."""

    machine: str
    context: int
    accel_rows: int
    host_rows: int
    policy: str
    tokens_per_s: float
    ratio: float
    simulated_ratio: float
    ideal_ratio: float | None
    late: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """One point of the sweep."""

    context: int
    accel_rows: int
    host_speed: float
    r: float
    gpu_over_cpu: float
    bound: float
    ratio: float
    simulated_ratio: float
    late: float

    @property
    def as_it_says(self) -> bool:
        return (self.gpu_over_cpu < self.bound) == (self.ratio > WINS)


def main(as_json: bool) -> None:
    bed = PacedBed(MODEL, T4.in_small())
    rows, crossings = [], []
    for machine, state in STATES:
        found = list(measure(bed, machine, state))
        rows.extend(found)
        if not as_json:
            print("\n".join(_lines(found)), flush=True)
    for state, speed in SWEEP:
        crossings.append(cross(bed, replace(T4, host_speed=speed), state))
        if not as_json:
            print(_crossing_line(crossings[-1]), flush=True)
    if as_json:
        print(json.dumps({"label": "emulated", "rows": list(map(asdict, rows)), "sweep": list(map(asdict, crossings))}))


def measure(bed: PacedBed, machine: Machine, state: State) -> Iterator[Row]:
    ideal = Ideal(machine.in_small(), _scaled(state, machine), load_config(machine.model).layers).over_gpu_only()
    alone, simulated_alone = _both(bed, machine, state, FORCED[Mode.GPU_ONLY.value])
    for name, policy in (FORCED | SELECTORS).items():
        is_alone = name == Mode.GPU_ONLY.value
        rate, simulated = (alone, simulated_alone) if is_alone else _both(bed, machine, state, policy)
        yield Row(
            machine.hardware,
            state.context,
            state.accel_rows,
            state.host_rows,
            name,
            rate.tokens_per_s,
            rate.tokens_per_s / alone.tokens_per_s,
            simulated.tokens_per_s / simulated_alone.tokens_per_s,
            next((ratio for mode, ratio in ideal.items() if mode.value == name), None),
            max(rate.overruns, alone.overruns),
        )


def cross(bed: PacedBed, machine: Machine, state: State) -> Crossing:
    ideal = Ideal(machine.in_small(), _scaled(state, machine), load_config(machine.model).layers)
    alone, simulated_alone = _both(bed, machine, state, FORCED[Mode.GPU_ONLY.value])
    rate, simulated = _both(bed, machine, state, FORCED[Mode.ASYMMETRIC.value])
    return Crossing(
        state.context,
        state.accel_rows,
        machine.host_speed,
        ideal.r,
        ideal.gpu_over_cpu,
        decode_bound(ideal.r),
        rate.tokens_per_s / alone.tokens_per_s,
        simulated.tokens_per_s / simulated_alone.tokens_per_s,
        max(rate.overruns, alone.overruns),
    )


def _both(bed: PacedBed, machine: Machine, state: State, policy: Policy) -> tuple[Rate, Rate]:
    """The same steps emulated and simulated, at one pace."""
    costs, layers = machine.in_small(), load_config(machine.model).layers
    emulated = steady_rate(policy, state, bed.with_costs(costs), machine.in_small(), STEPS, layers, machine.tokens_each)
    simulated = steady_rate(policy, state, SimBed(costs), machine.in_small(), STEPS, layers, machine.tokens_each)
    return emulated, simulated


def _scaled(state: State, machine: Machine) -> State:
    """In the tokens that really run, half-way through the steps that count."""
    return replace(state, context=state.context // machine.tokens_each + STEPS[0] + STEPS[1] // 2)


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    first = rows[0]
    yield (
        f"{first.machine}, emulated: context {first.context}, {first.accel_rows} on the accelerator, "
        f"{first.host_rows} on the host; gpu_only {first.tokens_per_s:.1f} tokens/s"
    )
    forced = max(row.ratio for row in rows if row.policy in FORCED)
    for row in rows[1:]:
        if row.ideal_ratio is None:
            against = f"{row.ratio / forced:.0%} of the best forced mode"
        else:
            against = f"ideal {row.ideal_ratio:.2f}, reached {row.ratio / row.ideal_ratio:.0%}"
        ratios = f"{row.ratio:5.2f} x gpu_only (simulated {row.simulated_ratio:.2f})"
        yield f"  {row.policy:14s} {ratios}; {against}{_late(row.late)}"


def _crossing_line(found: Crossing) -> str:
    wins = found.gpu_over_cpu < found.bound
    return (
        f"r {found.r:.2f}, N_G/N_C {found.gpu_over_cpu:.1f}, bound {found.bound:.1f}: "
        f"equation 6 says asymmetric {'wins' if wins else 'loses'}; "
        f"{found.ratio:.3f} x gpu_only (simulated {found.simulated_ratio:.3f}): "
        f"{'as it says' if found.as_it_says else 'NOT AS IT SAYS'}{_late(found.late)}"
    )


def _late(share: float) -> str:
    return f"; INVALID, {share:.1%} of ops late" if share > MOST_OVERRUNS else ""
