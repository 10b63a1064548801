"""From a catalogue machine and a model's shape, or from a profile, to the table that a run is costed with.

Two callers, two objects: the table that paces or simulates a run, and the predictor that a policy may ask.
"""

from collections.abc import Iterator
from dataclasses import replace

from engines.core.cost import CostTable, Predictor
from engines.core.roofline import PACKED_BYTES, MachineRates, ModelCosts, Roofline
from engines.core.skewed import skewed
from engines.hardware import ByShape, ByTokens, Hardware, Interference
from engines.model.config import ModelConfig, load_config
from harness.errors import ConfigError
from harness.experiment import Pace
from harness.machine import machine_of
from harness.plan import CellSpec, ProfileSpec
from harness.profile_file import Profile, digest_of, load_profile, mismatches
from harness.several_gpus import rates_of_all

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# Packed weights, by their bits: a code, and its share of what a group has in common (64 codes with two numbers of 16
# bit; 128 codes with one).
BYTES_OF_BITS = {4: PACKED_BYTES, 8: 1 + 2 / 128}

# A launch of the host's kernel and its answer; the kernel's own constants come from a profile of the machine.
HOST_ATTENTION_FIXED_S = 20e-6


def cost_table(spec: CellSpec) -> CostTable | None:
    """What this cell's ops take on its machine; None where none is modelled: a real GPU, native speed, an endpoint."""
    if spec.backend in ("cuda", "endpoint") or (spec.backend == "cpu" and spec.emulation.mode == "native"):
        return None
    if spec.backend == "sim" and spec.profile is not None:
        return _profile_of(spec, spec.profile).table()
    if spec.hardware is None:
        raise ConfigError(f"hardware: the {spec.backend} backend models a machine; name one (`harness list hardware`)")
    hardware, model, pace = machine_of(spec), load_config(spec.model), spec.emulation.pace
    if pace.reference_model is None:
        costs, rates = model_costs(model, spec.dtype), machine_rates(hardware, spec.dtype)
        costs, rates = packed(costs, rates, hardware, spec.dtype, spec.engine.weight_bits)
        return roofline(costs, rates_of_all(spec, rates, hardware), hardware.interference, pace.time_scale)
    reference = load_config(pace.reference_model)
    return scaled_costs(reference, model, hardware, pace)


def predictor(spec: CellSpec) -> Predictor | None:
    """What a policy believes: what can be known, or that made wrong on purpose."""
    known = known_costs(spec)
    return known if known is None or spec.predictor is None else skewed(known, spec.predictor.skew)


def known_costs(spec: CellSpec) -> Predictor | None:
    """What a policy may believe: on real cores a profile of them, elsewhere what the run is costed with, once more."""
    table = cost_table(spec)
    if table is not None or spec.profile is None or spec.backend == "endpoint":
        return table
    profile = _profile_of(spec, spec.profile)
    setting, backend = profile.setting, spec.backend
    if setting.backend != backend:
        raise ConfigError(f"profile: {spec.profile.path} was measured on {setting.backend}, this is {backend}")
    if backend == "cpu" and setting.accel_cores != spec.budget.accel_cores:
        raise ConfigError(
            f"profile: {spec.profile.path} was measured with accel_cores {setting.accel_cores}, "
            f"the budget has {spec.budget.accel_cores}"
        )
    return profile.table()


def _profile_of(spec: CellSpec, where: ProfileSpec) -> Profile:
    """The file may have been replaced since the run was planned; a cell's id would then lie."""
    profile = load_profile(where.path)
    if digest_of(where.path) != where.digest:
        raise ConfigError(f"profile: {where.path} has changed since this run was planned; start a new run")
    found = [*mismatches(profile, load_config(spec.model), spec.dtype, spec.budget.accel_page_tokens)]
    if found:
        raise ConfigError(f"profile: {where.path} {problem}" for problem in found)
    return profile


def model_costs(model: ModelConfig, dtype: str) -> ModelCosts:
    size = DTYPE_BYTES[dtype]
    return ModelCosts(
        layers=model.layers,
        pre_parameters=model.hidden_size * model.qkv_size,
        post_parameters=model.hidden_size * (model.query_size + model.ffn_matrices * model.ffn_size),
        head_parameters=model.hidden_size * model.vocab_size,
        bytes_per_parameter=size,
        kv_bytes_per_token=model.kv_bytes_per_token_per_layer(size),
        attention_flops_per_pair=4 * model.query_size,
        query_bytes_per_row=model.query_size * size,
        matrices=model.matrices,
    )


def machine_rates(hardware: Hardware, dtype: str) -> MachineRates:
    gpu, cpu, link = hardware.gpu, hardware.cpu, hardware.link
    if dtype not in gpu.flops:
        raise ConfigError(f"dtype: {hardware.name} has no {dtype}; it has {', '.join(sorted(gpu.flops))}")
    small = gpu.small_ops
    return MachineRates(
        gemm_bytes_per_s=gpu.gemm.bandwidth_efficiency * gpu.bandwidth_bytes_per_s,
        gemm_flops_per_s=gpu.gemm.compute_efficiency * gpu.flops[dtype],
        gemm_exponent=gpu.gemm.exponent,
        gemm_fixed_s=gpu.op_fixed_s,
        attention_bytes_per_s=gpu.attention.efficiency * gpu.bandwidth_bytes_per_s,
        attention_fixed_s=gpu.attention.fixed_s,
        host_attention_bytes_per_s=cpu.attention_share * cpu.read_bandwidth_bytes_per_s,
        host_attention_fixed_s=HOST_ATTENTION_FIXED_S,
        h2d_bytes_per_s=link.h2d_bytes_per_s,
        d2h_bytes_per_s=link.d2h_bytes_per_s,
        link_latency_s=link.latency_s,
        step_overhead_s=hardware.host_overhead_per_step_s,
        host_gemm_bytes_per_s=cpu.matrix_share * cpu.read_bandwidth_bytes_per_s,
        host_gemm_flops_per_s=cpu.flops,
        disk_read_bytes_per_s=hardware.disk.read_bytes_per_s,
        disk_write_bytes_per_s=hardware.disk.write_bytes_per_s,
        gemm_tile_rows=gpu.gemm.tile_rows,
        gemm_by_tokens=_ratio_points(gpu.gemm.by_tokens) if gpu.gemm.by_tokens else (),
        gemm_by_shape=tuple(_shape_points(gpu.gemm.by_shape)) if gpu.gemm.by_shape else (),
        small_op_fixed_s=small.fixed_s if small else 0.0,
        small_op_bytes_per_s=small.efficiency * gpu.bandwidth_bytes_per_s if small else 0.0,
    )


def roofline(costs: ModelCosts, rates: MachineRates, interference: Interference, time_scale: float = 1.0) -> Roofline:
    """`rates`: of units that work one at a time."""
    if interference == Interference():
        return Roofline(costs, rates, time_scale)
    host, links, accelerator = interference.host, interference.links, interference.accelerator
    return Roofline(costs, rates.slowed(host, links, accelerator), time_scale, rates, accelerator)


def _ratio_points(table: ByTokens) -> tuple[tuple[int, float], ...]:
    return tuple(zip(table.tokens, table.ratios, strict=True))


def _shape_points(tables: ByShape) -> Iterator[tuple[tuple[int, int], tuple[tuple[int, float], ...]]]:
    return (((each.inputs, each.outputs), _ratio_points(each.by_tokens)) for each in tables.products)


def packed(
    costs: ModelCosts, rates: MachineRates, hardware: Hardware, dtype: str, bits: int | None
) -> tuple[ModelCosts, MachineRates]:
    """The same with the layers' matrices in so many bits."""
    if bits is None:
        return costs, rates
    gpu, gemm = hardware.gpu, hardware.gpu.packed_gemm(bits)
    if gemm is None:
        raise ConfigError(f"hardware: {hardware.name} has no gpu.gemm_{bits}bit: what such products reach")
    return replace(costs, packed_bytes_per_parameter=BYTES_OF_BITS[bits]), replace(
        rates,
        packed_bytes_per_s=gemm.bandwidth_efficiency * gpu.bandwidth_bytes_per_s,
        packed_flops_per_s=gemm.compute_efficiency * gpu.flops[dtype],
        packed_exponent=gemm.exponent,
    )


def scaled_costs(reference: ModelConfig, model: ModelConfig, hardware: Hardware, pace: Pace) -> Roofline:
    """A small model in a large one's proportions: each layer costs what the reference's layer costs on that machine.

    What happens once per step (head, overhead) shrinks with the number of layers, so that its share stays the same. A
    workload scaled down by `tokens_each` costs per token what so many tokens cost there.
    """
    dtype = "float16"
    share = model.layers / reference.layers
    costs = model_costs(reference, dtype)
    costs = replace(
        costs,
        layers=model.layers,
        head_parameters=round(costs.head_parameters * share),
        tokens_each=pace.tokens_each,
    )
    rates = machine_rates(hardware, dtype)
    rates = replace(rates, step_overhead_s=rates.step_overhead_s * share)
    return roofline(costs, rates, hardware.interference, pace.time_scale)
