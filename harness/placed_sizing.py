"""Engines that place weights are asked before anything is sized: what they leave decides how much KV there is."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from engines.core.cost import Predictor
from engines.core.memory import ModelSizes, Room
from engines.core.placement import Placement, PlacementError
from engines.core.policy import PlacingPolicy
from engines.core.skewed import skewed
from engines.model.config import ModelConfig, load_config
from engines.registry import is_policy, make_engine
from harness.costs import DTYPE_BYTES, machine_rates, model_costs, predictor, roofline
from harness.errors import ConfigError
from harness.machine import machine_of
from harness.plan import CellSpec, WorkloadSpec
from harness.room import accel_memory, disk_memory, host_memory, workspace_bytes
from harness.several_gpus import spread, stages


def placed_room(spec: CellSpec) -> tuple[Room, Placement] | None:
    """None for everybody else. A planner knows nothing of the workload, so one plan serves all of an experiment's."""
    nothing = WorkloadSpec("", {})
    asked = replace(
        spec, cell_id="", experiment="", workload=nothing, slo=None, repeat=0, order=0, draws=_draws_of(spec)
    )
    measure = replace(spec.measure, seed=0, warmup_requests=0)
    return _placed(replace(asked, measure=measure, max_request_tokens=None).to_json())


def _draws_of(spec: CellSpec) -> int:
    """Of how many draws a machine is one; of none where it is the catalogue's own."""
    return spec.draws if spec.draw else 0


@lru_cache(maxsize=256)
def _placed(spec_json: str) -> tuple[Room, Placement] | None:
    """A planner may take a second, and sizes are asked for many times."""
    spec = CellSpec.from_json(spec_json)
    if not is_policy(spec.engine.kind):
        return None
    policy = make_engine(spec.engine.kind, spec.engine.options)
    if not (isinstance(policy, PlacingPolicy) and policy.places_weights):
        return None
    room = room_of(spec)
    try:
        return room, spread(spec, policy.place(room, belief(spec)))
    except PlacementError as error:
        raise ConfigError(f"engine {spec.engine.name}: {error}") from error


def belief(spec: CellSpec) -> Predictor | None:
    """A profile knows nothing of weights elsewhere than on the accelerator, nor does anybody of a machine at full
    speed: a catalogue entry is believed there, if one is named.
    """
    believed = predictor(spec)
    if hasattr(believed, "weights_s") or spec.hardware is None:
        return believed
    hardware = machine_of(spec)
    costs, rates = model_costs(load_config(spec.model), spec.dtype), machine_rates(hardware, spec.dtype)
    entry = roofline(costs, rates, hardware.interference)
    return entry if spec.predictor is None else skewed(entry, spec.predictor.skew)


def room_of(spec: CellSpec) -> Room:
    model, budget = load_config(spec.model), spec.budget
    sizes = model_sizes(model, DTYPE_BYTES[spec.dtype])
    workspace = workspace_bytes(spec, model, DTYPE_BYTES[spec.dtype])
    asked = budget.accel_kv_tokens if isinstance(budget.accel_kv_tokens, int) else None
    useful = budget.max_batch * model.max_positions
    return Room(
        sizes=sizes,
        accel_bytes=accel_memory(spec, model.weight_bytes(DTYPE_BYTES[spec.dtype]) + workspace),
        host_bytes=host_memory(spec),
        disk_bytes=disk_memory(spec),
        workspace_bytes=workspace,
        page_tokens=budget.accel_page_tokens,
        most_tokens=useful if asked is None else min(asked, useful),
        max_batch=budget.max_batch,
        max_batch_tokens=budget.max_batch_tokens,
        devices=stages(spec),
    )


def model_sizes(model: ModelConfig, dtype_bytes: int) -> ModelSizes:
    """Of tensors as they are held: `fixed_bytes` are the norms, the biases and, untied, the head."""
    vocabulary = model.vocab_size * model.hidden_size
    embedding = vocabulary + model.position_rows * model.hidden_size
    matrices = model.layers * model.linear_parameters_per_layer
    return ModelSizes(
        layers=model.layers,
        matrices=model.matrices,
        bytes_per_parameter=dtype_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token_per_layer(dtype_bytes),
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        embedding_bytes=embedding * dtype_bytes,
        fixed_bytes=(model.parameters - matrices - embedding) * dtype_bytes,
        tied_head=model.tied_head,
        head_bytes=vocabulary * dtype_bytes,
    )
