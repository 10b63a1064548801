"""GPU-only, as vLLM does it: all KV on the accelerator, decode and chunked prefill in one batch.

A request waits until its blocks are there. When a decode cannot get one, the youngest request makes room: recomputed
by default, swapped to the host when asked. vLLM's rule of admission is kept too: a prompt enters when there is room for
all of it, although it is computed in chunks (`admit: chunk` admits as soon as the first chunk fits).

`keep_preempted_kv` is what vLLM's prefix cache does for preempted requests: who comes back finds again those of its
blocks that nobody has been given since, and recomputes the rest. vLLM is shipped with it on; here it is off unless
asked for, because engines are compared with each other, and with vLLM, without sharing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engines.core.cost import Predictor
from engines.core.placement import Placement
from engines.core.policy import Decision, View
from engines.core.request import Request
from engines.core.stages import in_turns
from engines.core.types import Capabilities, Mode, PreemptionKind, Tier


@dataclass(frozen=True, slots=True)
class GpuOnly:
    preemption: Literal["recompute", "swap"] = "recompute"
    admit: Literal["prompt", "chunk"] = "prompt"
    keep_preempted_kv: bool = False

    @property
    def name(self) -> str:
        return "gpu_only"

    @property
    def uses_host_kv(self) -> bool:
        return self.preemption == "swap"

    def partition(self, capabilities: Capabilities, predict: Predictor | None) -> Placement:
        return Placement.all_on_accelerator(capabilities.layers)

    def decide(self, view: View) -> Decision:
        proposal = view.propose()
        proposal.continue_running(PreemptionKind(self.preemption))
        if not proposal.preemptions:
            proposal.admit_waiting(Tier.ACCEL, whole_prompt=self.admit == "prompt")
        if view.placement is not None and view.placement.stages:
            return proposal.decision(Mode.GPU_ONLY, *in_turns(proposal, view.placement.devices))
        return proposal.decision(Mode.GPU_ONLY)

    def steady(self, running: Sequence[Request]) -> Mode | None:
        return Mode.GPU_ONLY
