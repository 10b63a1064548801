"""From a budget to KV blocks: what fits beside the weights, the same arithmetic for every engine and backend.

Says what does not fit, and by how much, before anything is written; and what the engines of a run can all hold.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from engines.core.memory import Room, footprint, gib
from engines.core.placement import Placement
from engines.core.policy import Policy
from engines.core.types import Capabilities, Tier, TierCapacity, Unit
from engines.model.config import ModelConfig, load_config
from engines.registry import is_policy, make_engine
from harness.costs import DTYPE_BYTES
from harness.environment import allowed_cores
from harness.errors import ConfigError, is_user_mistake
from harness.machine import machine_of
from harness.packed import kv_cap, weight_bytes
from harness.placed_sizing import placed_room
from harness.plan import CellSpec
from harness.room import HOST_SHARE, disk_folder, machine_memory, models_whole_machine, workspace_bytes
from harness.several_gpus import of_all, spread, stages

HOST_PAGE_TOKENS = 256  # large pages feed the host's memory controllers better (measured for the host kernel)


@dataclass(frozen=True, slots=True)
class Sizing:
    """Where the accelerator's bytes go, and what is left for KV on both sides."""

    weight_bytes: int
    workspace_bytes: int
    kv_bytes_per_token: int
    accel_kv_tokens: int
    host_kv_tokens: int
    accel_page_tokens: int = 16
    placement: Placement | None = None  # of an engine that places weights
    beside_bytes: int = 0  # that it holds in the host's memory: weights, buffers and KV
    disk_bytes: int = 0

    @property
    def accel_blocks(self) -> int:
        return self.accel_kv_tokens // self.accel_page_tokens

    @property
    def longest_request_tokens(self) -> int:
        """The last token is never fed back, so it needs no place."""
        return self.accel_blocks * self.accel_page_tokens + 1


def size(spec: CellSpec) -> Sizing:
    """ConfigError when the weights alone do not fit."""
    placed = placed_room(spec)
    if placed is not None:
        return _placed_sizing(*placed)
    model = load_config(spec.model)
    dtype_bytes = DTYPE_BYTES[spec.dtype]
    weights, workspace = weight_bytes(spec), workspace_bytes(spec, model, dtype_bytes)
    per_token = model.layers * model.kv_bytes_per_token_per_layer(dtype_bytes)
    accel_tokens = _accel_tokens(spec, model, weights + workspace, per_token)
    page_tokens = spec.budget.accel_page_tokens
    if accel_tokens < page_tokens:
        raise ConfigError(
            f"budget: {max(accel_tokens, 0)} KV tokens fit beside {gib(weights)} of weights and {gib(workspace)} of "
            f"workspace, fewer than one page of {page_tokens}; raise accel_memory or lower max_batch_tokens"
        )
    host_tokens = _host_tokens(spec, accel_tokens, per_token)
    placement = spread(spec, Placement.all_on_accelerator(model.layers)) if stages(spec) > 1 else None
    return Sizing(weights, workspace, per_token, accel_tokens, host_tokens, page_tokens, placement)


def _placed_sizing(room: Room, placement: Placement) -> Sizing:
    """KV of a layer on the host is that of the very requests whose other layers are elsewhere: one count of tokens."""
    tokens = room.kv_blocks(placement) * room.page_tokens
    weights = footprint(placement, room.sizes)
    each = room.sizes.kv_bytes(packed=placement.compressed_kv)
    kv = {tier: placement.kv_layers(tier) * each for tier in Tier}
    return Sizing(
        weights.accel,
        room.workspace_bytes,
        kv[Tier.ACCEL],
        tokens,
        0,
        room.page_tokens,
        placement,
        weights.host + tokens * kv[Tier.HOST],
        weights.disk + tokens * kv[Tier.DISK],
    )


def capabilities(spec: CellSpec, sizing: Sizing, policy: Policy) -> Capabilities:
    """What the scheduler may know. A policy that never uses the host's KV gets none, so that none is allocated."""
    model = load_config(spec.model)
    host_blocks = sizing.host_kv_tokens // HOST_PAGE_TOKENS if policy.uses_host_kv else 0
    block_bytes = sizing.kv_bytes_per_token
    return Capabilities(
        layers=model.layers,
        accel=TierCapacity(sizing.accel_blocks, sizing.accel_page_tokens, sizing.accel_page_tokens * block_bytes),
        host=TierCapacity(host_blocks, HOST_PAGE_TOKENS, HOST_PAGE_TOKENS * block_bytes),
        units=frozenset(Unit) - {Unit.DISK},
        host_threads=host_threads(spec),
        max_model_tokens=model.max_positions,
    )


def host_threads(spec: CellSpec) -> int:
    """`auto` leaves one core to whoever launches: of the modelled machine, or of this one beside the accelerator's."""
    if isinstance(spec.budget.cpu_threads, int):
        return spec.budget.cpu_threads
    if spec.backend == "sim" and spec.hardware is not None:
        return max(1, machine_of(spec).cpu.cores - 1)
    return max(1, len(allowed_cores()) - (spec.budget.accel_cores if spec.backend == "cpu" else 1))


def longest_request_tokens(spec: CellSpec) -> int:
    """Prompt and output together, as far as the engine and the model's context go."""
    sizing = size(spec)
    longest = sizing.longest_request_tokens
    if is_policy(spec.engine.kind):
        policy = make_engine(spec.engine.kind, spec.engine.options)
        longest = capabilities(spec, sizing, policy).accel.tokens + 1
    return min(longest, load_config(spec.model).max_positions)


def common_request_tokens(cells: Iterable[CellSpec]) -> int | None:
    """What every engine of a run can hold: a workload is cut to it once, before any engine sees it.

    None where an engine holds nothing at all: what is wrong with it is said when the cells are checked.
    """
    one_each = {cell.engine.name: cell for cell in cells}
    try:
        return min(longest_request_tokens(cell) for cell in one_each.values())
    except ValueError as error:
        if is_user_mistake(error):
            return None
        raise


def memory_problems(spec: CellSpec, sizing: Sizing) -> list[str]:
    """On `cpu` the emulated accelerator's bytes are this machine's bytes."""
    if spec.backend != "cpu":
        return []
    needed = sizing.weight_bytes + sizing.workspace_bytes + sizing.kv_bytes_per_token * sizing.accel_kv_tokens
    needed += sizing.beside_bytes
    available = psutil.virtual_memory().available
    if needed <= 0.9 * available:
        return []
    return [f"budget: {spec.model} needs {gib(needed)} on the cpu backend, {gib(available)} are free on this machine"]


def disk_problems(spec: CellSpec, sizing: Sizing) -> list[str]:
    """Found out before anything is served: what will be written has to have a place."""
    if not sizing.disk_bytes or spec.backend == "sim":
        return []
    folder = disk_folder(spec)
    if not Path(folder).is_dir():
        return [f"budget.disk_folder: {folder} is no folder; name one that exists"]
    if not os.access(folder, os.W_OK):
        return [f"budget.disk_folder: {folder} cannot be written; name another"]
    free = psutil.disk_usage(folder).free
    if sizing.disk_bytes > free:
        problem = f"{gib(sizing.disk_bytes)} are to be placed in {folder}, {gib(free)} are free there"
        return [f"budget.disk_folder: {problem}; free some, or place less on disk"]
    return []


def _accel_tokens(spec: CellSpec, model: ModelConfig, taken_bytes: int, per_token: int) -> int:
    """`accel_kv_tokens` and `accel_memory` bind where they are given; where both are, the smaller one does."""
    budget = spec.budget
    asked = kv_cap(spec)
    if isinstance(budget.accel_memory, int):
        memory: int | None = of_all(spec, budget.accel_memory)
    else:
        memory = machine_memory(spec, taken_bytes) if asked is None or spec.backend not in ("cpu", "endpoint") else None
    by_memory = None if memory is None else (memory - taken_bytes) // per_token
    if by_memory is not None and by_memory < 0:
        of_gpus = f" on {spec.engine.gpus} GPUs" if spec.engine.gpus > 1 else ""
        raise ConfigError(
            f"budget: {spec.model} in {spec.dtype} takes {gib(taken_bytes)} for weights and workspace, "
            f"accel_memory is {gib(memory or 0)}{of_gpus}"
        )
    useful = budget.max_batch * model.max_positions  # more KV than every request at its longest is never touched
    return min(tokens for tokens in (asked, by_memory, useful) if tokens is not None)


def _host_tokens(spec: CellSpec, accel_tokens: int, per_token: int) -> int:
    budget = spec.budget
    if isinstance(budget.host_kv_tokens, int):
        return budget.host_kv_tokens
    if isinstance(budget.host_memory, int):
        return budget.host_memory // per_token
    if (machine := models_whole_machine(spec)) is not None:
        return int(machine.cpu.memory_bytes * HOST_SHARE) // per_token
    return 4 * accel_tokens
