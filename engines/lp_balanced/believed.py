"""FlexGen's constants from a cost table: the rates at which a policy believes that this machine does this model's work.

Sizes are in the equations' own 16 bit, whatever the model's dtype is: a rate is what they divide by the time believed.
"""

from __future__ import annotations

from engines.core.cost import PlacedCosts, work_of_rows
from engines.core.memory import ModelSizes
from engines.core.placement import Part
from engines.core.units import Tier, Unit
from engines.lp_balanced.constants import GIGABYTE, TERAFLOP, Constants
from engines.lp_balanced.shapes import PlannedModel

PROBED_TOKENS = 1024  # long enough for a link's latency not to count


def planned_model(sizes: ModelSizes, *, compressed: bool) -> PlannedModel:
    """`ffn` is chosen so that the equations' layer has as many parameters as the model's."""
    hidden = sizes.matrices[0][0]
    parameters = sum(inputs * outputs for inputs, outputs in sizes.matrices)
    ffn = max(1, round((2 * parameters - 8 * hidden**2) / (4 * hidden)))
    kv_width = sizes.kv_bytes_per_token // (2 * sizes.bytes_per_parameter)
    packed = sizes.layer_bytes(packed=True) / sizes.layer_bytes() if compressed else 1.0
    return PlannedModel("model", hidden, ffn, sizes.layers, sizes.kv_heads, kv_width / hidden, packed)


def constants_of(costs: PlacedCosts, sizes: ModelSizes, s: int, n: int, gpu_batch: int) -> Constants:
    """For prompts of s and answers of n tokens, in batches of `gpu_batch`."""
    model, parts, tokens = planned_model(sizes, compressed=False), tuple(Part), PROBED_TOKENS
    context, hidden = s + n // 2, model.hidden
    prompts = work_of_rows(0, 0, [(s, 0, True, Tier.ACCEL)] * gpu_batch)
    decodes = work_of_rows(gpu_batch, gpu_batch * context, [])
    kv_bytes = tokens * model.kv_bytes
    flops_each = 4 * gpu_batch * context * hidden
    disk_s = costs.kv_on_disk_s(tokens, writes=True)
    hidden_s = costs.rows_s(hidden, tokens, Tier.HOST)
    return Constants(
        name="believed",
        source="the cost table of this run",
        gpu_from_cpu_gb_per_s=_gb(model.layer_bytes, costs.weights_s(parts, 1.0, Unit.H2D, packed=False)),
        cpu_from_gpu_cache_gb_per_s=_gb(kv_bytes, costs.kv_to_host_s(tokens)),
        cpu_from_gpu_hidden_gb_per_s=_gb(2 * hidden * tokens, hidden_s),
        cpu_from_disk_gb_per_s=_gb(model.layer_bytes, costs.weights_s(parts, 1.0, Unit.DISK, packed=False)),
        disk_from_cpu_cache_gb_per_s=_gb(kv_bytes, disk_s),
        disk_from_cpu_hidden_gb_per_s=_gb(kv_bytes, disk_s),
        disk_from_cpu_decode_gb_per_s=_gb(kv_bytes, disk_s),
        matmul_prefill_tflops=_tera(
            gpu_batch * s * model.layer_flops, costs.matrix_s(parts, 1.0, costs.gemm_rows(prompts))
        ),
        attention_prefill_tflops=_tera(4 * gpu_batch * s**2 * hidden, costs.accel_attention_s(prompts)),
        matmul_decode_tflops=_tera(gpu_batch * model.layer_flops, costs.matrix_s(parts, 1.0, gpu_batch)),
        attention_decode_tflops=_tera(flops_each, costs.accel_attention_s(decodes)),
        cpu_tflops=_tera(flops_each, costs.host_attention_s(gpu_batch, gpu_batch * context)),
        cpu_c1=0.0,
        cpu_c2=0.0,
        cpu_c3=0.0,
    )


def _gb(size_bytes: float, seconds: float) -> float:
    return size_bytes / seconds / GIGABYTE


def _tera(flops: float, seconds: float) -> float:
    return flops / seconds / TERAFLOP
