"""`harness explain lp --planner twinpilots`: which operators the host would compute, and how the two loads balance.

Nothing runs: times are believed of a machine of the catalogue, for a step in which all requests decode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engines.core.memory import Room, footprint
from engines.core.placement import Part, PlacementError
from engines.core.roofline import Roofline
from engines.core.units import Tier
from engines.hardware import load_hardware
from engines.lp_balanced.balance import Form
from engines.lp_balanced.online import Balanced, Load, choose
from engines.model.config import load_config
from harness.costs import DTYPE_BYTES, machine_rates, model_costs
from harness.errors import ConfigError
from harness.placed_sizing import model_sizes
from harness.sizes import format_bytes

DTYPE = "float16"
HARDWARE = "t4_g4dn_4xlarge"
PAGE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class PilotPlan:
    model: str
    hardware: str
    batch: int
    found: Balanced
    peak_bytes: Mapping[str, int]

    @property
    def pinned_layers(self) -> int:
        return sum(all(split.is_resident for split in layer.splits) for layer in self.found.placement.layers)

    @property
    def host_share(self) -> dict[str, float]:
        """Of each operator of the layers that are not pinned."""
        layers = self.found.placement.layers
        free = max(1, len(layers) - self.pinned_layers)
        return {part.value: sum(layer.split(part).host for layer in layers) / free for part in Part}

    def to_json(self) -> dict[str, object]:
        found = self.found
        return {
            "model": self.model,
            "constants": self.hardware,
            "batch": self.batch,
            "assignment": [[split.host for split in layer.splits] for layer in found.placement.layers],
            "host_share": self.host_share,
            "pinned_layers": self.pinned_layers,
            "kv_layers_on_host": found.placement.kv_layers(Tier.HOST),
            "load_cpu_s": found.balance.cpu_s,
            "load_gpu_s": found.balance.gpu_s,
            "predicted_latency_s": found.step_s,
            "predicted_tokens_per_s": self.batch / found.step_s,
            "binds": list(found.balance.binds),
            "duals": dict(found.balance.duals),
            "proven": found.balance.proven,
            "peak_bytes": dict(self.peak_bytes),
        }


def explained_pilot(
    model: str, hardware: str, prompt: int, output: int, memories: tuple[int, int, int], batch: int, form: Form
) -> PilotPlan:
    config = load_config(model)
    sizes = model_sizes(config, DTYPE_BYTES[DTYPE])
    page_kv = -(-(prompt + output) // PAGE_TOKENS) * PAGE_TOKENS
    tokens = batch * page_kv
    room = Room(sizes, *memories, 0, PAGE_TOKENS, tokens, batch, batch)
    costs = Roofline(model_costs(config, DTYPE), machine_rates(load_hardware(hardware), DTYPE))
    try:
        found = choose(room, costs, form, Load(batch, 0, prompt + output // 2), tokens)
    except PlacementError as error:
        raise ConfigError(str(error)) from error
    weights = footprint(found.placement, sizes)
    peaks = {
        name: weights.of(tier) + found.placement.kv_layers(tier) * tokens * sizes.kv_bytes_per_token
        for name, tier in zip(("GPU", "CPU", "disk"), Tier, strict=True)
    }
    return PilotPlan(model, hardware, batch, found, peaks)


def pilot_lines(plan: PilotPlan) -> Iterator[str]:
    found = plan.found
    balance = found.balance
    yield (
        f"{plan.model}, {plan.batch} requests decoding, predicted for {plan.hardware}: "
        f"{plan.batch / found.step_s:.2f} tokens/s, {found.step_s:.3f} s a step"
    )
    kv_layers = found.placement.kv_layers(Tier.HOST)
    yield f"  pinned on the GPU: {plan.pinned_layers} layers; KV on the host: {kv_layers} layers"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in plan.host_share.items())
    yield f"  the host computes of the others: {shares}"
    yield f"  loads: CPU {balance.cpu_s:.3f} s, GPU and link {balance.gpu_s:.3f} s ({balance.imbalance:.1%} apart)"
    yield "  peak memory: " + ", ".join(f"{tier} {format_bytes(size)}" for tier, size in plan.peak_bytes.items())
    yield f"  what binds: {', '.join(balance.binds)}"
    for name, dual in balance.duals.items():
        yield f"  a second more of {name} costs {dual:.2f} s a step"
    if not balance.proven:
        yield "  the search was cut short: a better assignment may exist"
