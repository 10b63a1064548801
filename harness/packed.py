"""Weights in 4 or 8 bits: how many bytes they are, what KV fits beside them, and where that can be asked for.

Only the layers' matrices are packed; embedding, head and norms stay in the model's dtype, as usual kernels have it.
What products with them cost is the catalogue's to say (engines/hardware), and is simulated only.
"""

from __future__ import annotations

from collections.abc import Iterator

from engines.core.policy import PlacingPolicy
from engines.model.config import ModelConfig, load_config
from engines.registry import is_policy, make_engine
from harness.costs import BYTES_OF_BITS, DTYPE_BYTES
from harness.plan import CellSpec


def weight_bytes(spec: CellSpec) -> int:
    """Of the whole model, as this engine holds it."""
    return load_config(spec.model).weight_bytes(DTYPE_BYTES[spec.dtype]) - freed_bytes(spec)


def freed_bytes(spec: CellSpec) -> int:
    """What packing saves."""
    if spec.engine.weight_bits is None:
        return 0
    return round(
        _matrices(load_config(spec.model)) * (DTYPE_BYTES[spec.dtype] - BYTES_OF_BITS[spec.engine.weight_bits])
    )


def kv_cap(spec: CellSpec) -> int | None:
    """`accel_kv_tokens` stands for the bytes left beside weights in the model's dtype: who packs them has more."""
    asked = spec.budget.accel_kv_tokens
    if not isinstance(asked, int):
        return None
    model = load_config(spec.model)
    return asked + freed_bytes(spec) // (model.layers * model.kv_bytes_per_token_per_layer(DTYPE_BYTES[spec.dtype]))


def packing_problems(spec: CellSpec) -> Iterator[str]:
    """Why this cell cannot have packed weights; nothing where it asks for none."""
    if spec.engine.weight_bits is None:
        return
    where = f"engine {spec.engine.name}: weight_bits"
    if spec.backend != "sim":
        yield f"{where} is simulated only: our runtime computes in dtype; use --backend sim or leave it out"
    elif spec.emulation.pace.reference_model is not None:
        yield f"{where} has no place beside emulation.pace.reference_model, whose weights are as they are"
    elif spec.profile is not None:
        yield f"{where} is not in a profile, which measured the weights as they are; name hardware: instead"
    elif not is_policy(spec.engine.kind):
        yield f"{where} is for our own schedulers; engines of their own have options of their own"
    elif _places(spec):
        yield f"{where} is for engines whose weights are all on the accelerator; lp_balanced has compression options"


def _places(spec: CellSpec) -> bool:
    policy = make_engine(spec.engine.kind, spec.engine.options)
    return isinstance(policy, PlacingPolicy) and policy.places_weights


def _matrices(model: ModelConfig) -> int:
    return model.layers * model.linear_parameters_per_layer
