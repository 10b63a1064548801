"""THE ONLY WIRING: from a cell's specification to the objects that run it. Everything else gets its parts handed in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.backends.op_times import OpSink
from engines.backends.sim import SimExecutor
from engines.core.adapter import EngineAdapter
from engines.core.clock import Clock, MonotonicClock, VirtualClock
from engines.core.cost import CostTable, Predictor
from engines.core.executor import Executor
from engines.core.forecast import Forecast
from engines.core.policy import Policy
from engines.core.roofline import Roofline
from engines.core.scheduler import EngineCore
from engines.core.stretch import Stretch
from engines.core.types import Capabilities, Limits
from engines.model.config import load_config
from engines.process.child import EngineProcessError
from engines.registry import is_policy, make_engine
from harness.adapter import CoreAdapter, StepObserver, StepSight
from harness.arrival_source import ArrivalSource
from harness.checks import require_engines
from harness.costs import DTYPE_BYTES, cost_table, predictor
from harness.driver import Prompts
from harness.environment import allowed_cores
from harness.errors import ConfigError, UnfitEnvironmentError, is_user_mistake
from harness.journal import Journal
from harness.memory_use import memory_use
from harness.operators import OperatorRecorder, sizes_told
from harness.packed import freed_bytes, packing_problems
from harness.placed_sizing import belief, model_sizes
from harness.plan import CellSpec
from harness.recorder import ColumnSink, Predict, PredictEach, StepRecorder, TraceRecorder
from harness.room import disk_folder, disk_memory
from harness.served import WEIGHT_SEED, open_served, served_problems, temporary_folder
from harness.several_gpus import gpu_problems
from harness.sizing import Sizing, capabilities, disk_problems, memory_problems, size
from workloads import Workload, clip
from workloads import build as build_workload
from workloads.prompts import prompt_token_ids

JOURNAL_FILE = "journal.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell, ready to be served."""

    adapter: EngineAdapter
    clock: Clock
    workload: Workload
    arrivals: ArrivalSource
    prompts: Prompts
    trace: TraceRecorder
    operators: OperatorRecorder | None = None  # of engines whose ops we see


@dataclass(frozen=True, slots=True)
class _Plan:
    """What can be worked out without allocating anything."""

    policy: Policy
    sizing: Sizing
    capabilities: Capabilities
    limits: Limits
    costs: CostTable | None
    predictor: Predictor | None


def check(spec: CellSpec) -> list[str]:
    """Problems that would make this cell fail, one line each; nothing is written or allocated."""
    return check_model(spec) or _problems_of(lambda: _clipped(spec, size(spec)))


def check_model(spec: CellSpec) -> list[str]:
    """The same without a workload: the engine, the machine, the model's files and the memory they need."""

    def prepare() -> None:
        if problems := [*packing_problems(spec), *gpu_problems(spec)]:
            raise ConfigError(problems)
        ours = is_policy(spec.engine.kind)
        if not ours and (problems := served_problems(spec)):  # first: where it cannot run there is nothing to size
            raise ConfigError(problems)
        sizing = _plan(spec).sizing if ours else size(spec)
        if spec.backend != "sim" and Path(spec.model).is_dir():
            from engines.model.weights import check_folder

            check_folder(spec.model, load_config(spec.model))
        if ours and (problems := _policy_problems(spec, sizing)):
            raise ConfigError(problems)

    return _problems_of(prepare)


def _policy_problems(spec: CellSpec, sizing: Sizing) -> list[str]:
    """On an endpoint our own runtime would be measured here, and the label would say that it was there."""
    if spec.backend == "endpoint":
        return [f"engine {spec.engine.name}: runs here and not behind an endpoint; use backend cpu, cuda or sim"]
    return memory_problems(spec, sizing) + disk_problems(spec, sizing) + _belief_problems(spec)


def _belief_problems(spec: CellSpec) -> list[str]:
    if spec.predictor is None or _plan(spec).predictor is not None:
        return []
    return [f"predictor: nothing is believed on {spec.backend} that could be skewed; give a profile, or leave it out"]


def _problems_of(attempt: Callable[[], object]) -> list[str]:
    try:
        attempt()
    except ConfigError as error:
        return list(error.problems)
    except ValueError as error:
        if is_user_mistake(error):
            return [str(error)]
        raise
    return []


def core_for(spec: CellSpec) -> EngineCore:
    """The scheduler of a cell without anything below it: replays need no more."""
    plan = _plan(spec)
    return _core(plan)


def _core(plan: _Plan) -> EngineCore:
    return EngineCore(plan.policy, plan.capabilities, plan.limits, plan.predictor, plan.sizing.placement)


def build(spec: CellSpec, cell_dir: Path, step_sink: Callable[..., None], steps_sink: ColumnSink | None = None) -> Cell:
    """`steps_sink` takes the columns of many steps at once, where there is one."""
    if not is_policy(spec.engine.kind):
        return _served_cell(spec, cell_dir, step_sink)
    plan = _plan(spec)
    workload = _clipped(spec, plan.sizing)
    core = _core(plan)
    sizes = model_sizes(load_config(spec.model), DTYPE_BYTES[spec.dtype])
    trace = TraceRecorder()
    ops = OperatorRecorder(sizes_told(sizes, plan.costs, core.placement), trace)
    longest = longest_of(workload)
    clock, executor, resolved = _executor(spec, plan, core, longest, WEIGHT_SEED, plan.limits.max_batch_tokens, ops)
    memory = memory_use(sizes, core.placement, plan.capabilities, freed_bytes(spec))
    resolved = _resolved(spec, plan) | resolved | {"memory": memory.to_json()}
    observers = (StepRecorder(step_sink, *_predictions(core, plan, spec.backend), steps_sink), ops)
    adapter = CoreAdapter(core, executor, resolved, Journal(cell_dir / JOURNAL_FILE), observers)
    prompts = {} if spec.backend == "sim" else _prompts(spec, workload)
    return Cell(adapter, clock, workload, ArrivalSource(workload), prompts, trace, ops)


def simulated(spec: CellSpec, observers: Sequence[StepObserver] = ()) -> Cell:
    """One of our engines on the simulator, unrecorded: for whoever wants its figures and nothing else."""
    plan = _plan(spec)
    workload, core = _clipped(spec, plan.sizing), _core(plan)
    clock, executor, _ = _executor(spec, plan, core, 0, WEIGHT_SEED, 0, None)
    adapter = CoreAdapter(core, executor, {}, observers=observers)
    return Cell(adapter, clock, workload, ArrivalSource(workload), {}, TraceRecorder())


def _served_cell(spec: CellSpec, cell_dir: Path, step_sink: Callable[..., None]) -> Cell:
    """An engine of its own: the run's workload and clock, but it decides unseen: neither journal nor timeline."""
    workload = _clipped(spec, size(spec))
    arrivals = ArrivalSource(workload)
    served = open_served(spec, cell_dir, longest_of(workload), lambda: arrivals.next_s, step_sink)
    prompts = _prompts(spec, workload) if served.engine.runs_model else {}
    return Cell(served.adapter, served.clock, workload, arrivals, prompts, TraceRecorder())


def longest_of(workload: Workload) -> int:
    return max(request.prompt_tokens + request.output_tokens for request in workload.requests)


def _prompts(spec: CellSpec, workload: Workload) -> Prompts:
    vocabulary, seed = load_config(spec.model).vocab_size, spec.measure.seed
    return {request.request_id: prompt_token_ids(request, vocabulary, seed) for request in workload.requests}


def offline_adapter(
    spec: CellSpec, longest_request_tokens: int, sampling: Mapping[str, Any] | None = None
) -> EngineAdapter:
    """An engine without a workload, a journal or an onlooker; the cell's seed draws the weights of a named shape.

    `sampling`: temperature, top_k, top_p and seed; greedy where it is not given, as in every comparison.
    """
    require_engines([spec])
    problems = check_model(spec)
    if problems:
        raise ConfigError(problems)
    if not is_policy(spec.engine.kind):
        return _offline_served(spec, longest_request_tokens, sampling)
    plan = _plan(spec)
    core = _core(plan)
    _, executor, resolved = _executor(spec, plan, core, longest_request_tokens, spec.measure.seed, 0, None, sampling)
    return CoreAdapter(core, executor, resolved)


def _offline_served(spec: CellSpec, longest_request_tokens: int, sampling: Mapping[str, Any] | None) -> EngineAdapter:
    if sampling and sampling.get("temperature"):
        raise ConfigError(f"engine {spec.engine.kind}: is compared greedily; leave --temperature at 0")
    served = open_served(spec, temporary_folder("engine"), longest_request_tokens)
    if not served.engine.runs_model:
        raise ConfigError(f"engine {spec.engine.kind}: decides nothing and runs no model; it can only be served")
    try:
        served.adapter.start()
    except EngineProcessError as error:
        raise UnfitEnvironmentError(str(error)) from error
    return served.adapter


def _plan(spec: CellSpec) -> _Plan:
    if not is_policy(spec.engine.kind):
        raise ConfigError(f"engine {spec.engine.kind}: decides for itself and not for our scheduler")
    policy: Policy = make_engine(spec.engine.kind, spec.engine.options)
    sizing = size(spec)
    limits = Limits(spec.budget.max_batch, spec.budget.max_batch_tokens)
    # Two objects on purpose: what a policy believes must never be the very table that decides the outcome.
    believed = predictor(spec) if sizing.placement is None else belief(spec)
    return _Plan(policy, sizing, capabilities(spec, sizing, policy), limits, cost_table(spec), believed)


def _clipped(spec: CellSpec, sizing: Sizing) -> Workload:
    """The workload as every engine of the run can hold it."""
    workload = build_workload({"name": spec.workload.name, **spec.workload.options}, spec.measure.seed)
    limit = spec.max_request_tokens or min(sizing.longest_request_tokens, load_config(spec.model).max_positions)
    smallest = min(request.prompt_tokens + request.output_tokens for request in workload.requests)
    if smallest > limit:
        raise ConfigError(
            f"budget: no request of workload {spec.workload.name} fits: the smallest needs {smallest} tokens, "
            f"{limit} can be held ({sizing.accel_blocks} blocks of {sizing.accel_page_tokens}); raise accel_kv_tokens "
            f"or accel_memory, or shrink the workload with scale:"
        )
    return clip(workload, limit)


def _executor(
    spec: CellSpec,
    plan: _Plan,
    core: EngineCore,
    longest: int,
    weight_seed: int,
    warm_rows: int,
    ops: OperatorRecorder | None,
    sampling: Mapping[str, Any] | None = None,
) -> tuple[Clock, Executor, dict[str, object]]:
    if spec.backend == "sim":
        assert plan.costs is not None
        virtual = VirtualClock()
        if ops is None:
            return virtual, SimExecutor(plan.capabilities, core.placement, plan.costs, virtual), {}
        sim = SimExecutor(
            plan.capabilities,
            core.placement,
            plan.costs,
            virtual,
            ops.timeline,
            alike=ops.alike,
            alike_steps=ops.alike_steps,
            sink_all=ops.timeline.all_of if isinstance(ops.timeline, TraceRecorder) else None,
        )
        return virtual, sim, {}
    from harness.real import claim_cores, claim_priority, host_pool, open_model, paced_clock, torch_executor

    cores = allowed_cores()
    claimed = claim_cores(spec.budget.accel_cores)
    spare = [core for core in cores if core not in claimed]
    clock = MonotonicClock() if plan.costs is None else paced_clock(claim_priority())
    if not core.placement.all_resident:
        return clock, *_placed(spec, plan, core, longest, weight_seed, warm_rows, clock, spare, ops, sampling or {})
    model = open_model(spec.model, spec.dtype, spec.backend, weight_seed, longest, warm_rows)
    pool = host_pool(plan.capabilities.host_threads, spare) if plan.policy.uses_host_kv else None
    executor, resolved = torch_executor(
        model,
        plan.capabilities,
        core.placement,
        plan.limits,
        clock,
        plan.costs,
        spec.backend,
        ops,
        sampling or {},
        pool,
    )
    return clock, executor, resolved


def _placed(
    spec: CellSpec,
    plan: _Plan,
    core: EngineCore,
    longest: int,
    weight_seed: int,
    warm_rows: int,
    clock: MonotonicClock,
    spare: Sequence[int],
    sink: OpSink | None,
    sampling: Mapping[str, Any],
) -> tuple[Executor, dict[str, object]]:
    from harness.real import host_pool
    from harness.real_placed import PlacedModel, placed_executor

    placement, caps = core.placement, plan.capabilities
    disk = (disk_folder(spec), disk_memory(spec))
    placed = PlacedModel(spec.model, spec.dtype, spec.backend, weight_seed, longest, warm_rows, placement, disk)
    pool = host_pool(caps.host_threads, spare) if placement.computes_on_host else None
    return placed_executor(placed, caps, placement, plan.limits, clock, plan.costs, spare, sink, sampling, pool)


def _predictions(core: EngineCore, plan: _Plan, backend: str) -> tuple[Predict, PredictEach]:
    """What the policy's predictor believes the step just run would take, or each of many."""
    predictor = plan.predictor
    if predictor is None:
        return lambda _: None, lambda stretch: [None] * len(stretch)
    if backend == "sim" and isinstance(predictor, Roofline) and predictor.equals(plan.costs):
        return _as_simulated, _each_as_simulated  # it would say the very same, and take as long as the simulator
    forecast = Forecast(predictor, core.placement)
    return lambda sight: forecast.seconds(sight.plan, sight.result), forecast.each_of


def _as_simulated(sight: StepSight) -> float:
    return sight.result.ended_s - sight.result.started_s


def _each_as_simulated(stretch: Stretch) -> list[float]:
    repeats = stretch.repeats
    return [ended_s - started_s for started_s, ended_s in zip(repeats.started_s, repeats.ended_s, strict=True)]


def _resolved(spec: CellSpec, plan: _Plan) -> dict[str, object]:
    """What the engine really got, for the fairness table."""
    caps, sizing = plan.capabilities, plan.sizing
    return {
        "accel_kv_tokens": caps.accel.tokens,
        "accel_kv_blocks": caps.accel.blocks,
        "accel_page_tokens": caps.accel.page_tokens,
        "accel_kv_bytes": caps.accel.blocks * caps.accel.bytes_per_block,
        "host_kv_tokens": caps.host.tokens,
        "weight_bytes": sizing.weight_bytes,
        "workspace_bytes": sizing.workspace_bytes,
        "dtype": spec.dtype,
        "weight_bits": spec.engine.weight_bits or 8 * DTYPE_BYTES[spec.dtype],
        "gpus": spec.engine.gpus,
        "max_batch": plan.limits.max_batch,
        "max_batch_tokens": plan.limits.max_batch_tokens,
        "cpu_threads": 0 if not plan.policy.uses_host_kv else caps.host_threads,
        "accel_cores": spec.budget.accel_cores if spec.backend == "cpu" else 0,
        "attention": "modelled" if spec.backend == "sim" else "",
        **_believed(spec),
    }


def _believed(spec: CellSpec) -> dict[str, object]:
    """Beside what it got: how its beliefs were made wrong."""
    if spec.predictor is None:
        return {}
    return {"predictor": spec.predictor.told(str(spec.workload.options["name"]))}
