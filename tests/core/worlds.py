"""Small worlds for scheduler tests: a core over a constant cost table, driven in virtual time without any executor."""

from dataclasses import dataclass, field

from engines.backends.sim import SimExecutor
from engines.core.clock import VirtualClock
from engines.core.policy import Policy
from engines.core.roofline import MachineRates, ModelCosts, Roofline
from engines.core.scheduler import EngineCore
from engines.core.types import Capabilities, Limits, RequestSpec, StepEvents, StepPlan, TierCapacity
from engines.gpu_only.policy import GpuOnly

MODEL = ModelCosts(
    layers=4,
    pre_parameters=200_000,
    post_parameters=600_000,
    head_parameters=500_000,
    bytes_per_parameter=2,
    kv_bytes_per_token=1024,
    attention_flops_per_pair=2048,
    query_bytes_per_row=512,
)
MACHINE = MachineRates(
    gemm_bytes_per_s=1e9,
    gemm_flops_per_s=1e12,
    gemm_exponent=4.0,
    gemm_fixed_s=1e-5,
    attention_bytes_per_s=1e9,
    attention_fixed_s=1e-5,
    host_attention_bytes_per_s=2e8,
    host_attention_fixed_s=1e-5,
    h2d_bytes_per_s=1e9,
    d2h_bytes_per_s=1e9,
    link_latency_s=1e-5,
    step_overhead_s=1e-4,
)


def capabilities(accel_blocks: int, host_blocks: int = 0, page_tokens: int = 16, host_page: int = 64) -> Capabilities:
    return Capabilities(4, TierCapacity(accel_blocks, page_tokens), TierCapacity(host_blocks, host_page))


@dataclass
class World:
    """A core and a simulator; `step()` runs one iteration and checks every invariant after it."""

    core: EngineCore
    executor: SimExecutor
    clock: VirtualClock
    plans: list[StepPlan] = field(default_factory=list)
    delivered: dict[int, int] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)
    first_admission: list[int] = field(default_factory=list)

    def submit(self, request_id: int, prompt: int, output: int) -> bool:
        return self.core.submit(RequestSpec(request_id, prompt, output)) is None

    def step(self) -> StepEvents | None:
        plan = self.core.schedule(self.clock.now())
        if plan is None:
            return None
        events = self.core.commit(plan, self.executor.run(plan))
        self.core.check_integrity()
        self.plans.append(plan)
        self.first_admission.extend(events.admitted)
        for request_id in events.request_ids:
            self.delivered[request_id] = self.delivered.get(request_id, 0) + 1
        self.finished.extend(events.finished)
        return events

    def run_out(self, most_steps: int = 100_000) -> None:
        for _ in range(most_steps):
            if self.step() is None:
                return
        raise AssertionError(f"still working after {most_steps} steps")


def world(
    accel_blocks: int,
    max_batch: int = 8,
    max_batch_tokens: int = 64,
    host_blocks: int = 0,
    policy: Policy | None = None,
    page_tokens: int = 16,
    host_page: int = 64,
) -> World:
    caps = capabilities(accel_blocks, host_blocks, page_tokens, host_page)
    costs = Roofline(MODEL, MACHINE)
    core = EngineCore(policy or GpuOnly(), caps, Limits(max_batch, max_batch_tokens), Roofline(MODEL, MACHINE))
    clock = VirtualClock()
    return World(core, SimExecutor(caps, core.placement, costs, clock), clock)
