"""From an experiment to the cells that are run: engines x workloads x repeats, in a fair order, each with a stable id.

A cell's id depends on what decides its numbers and on nothing else, so that a resumed run recognises its cells.
Running them is runner.py's; whether they fit the machine is build.py's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from harness.errors import ConfigError
from harness.experiment import Budget, DType, Emulation, EngineChoice, Experiment, Slo
from harness.gpu import local_gpus, torch_reaches_gpu
from harness.prediction_error import Belief, beliefs

ResolvedBackend = Literal["cuda", "cpu", "sim", "endpoint"]
LABELS: dict[ResolvedBackend, str] = {
    "cuda": "measured",
    "cpu": "emulated",
    "sim": "simulated",
    "endpoint": "measured",  # at the client, of whatever stands behind the endpoint
}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    kind: str
    name: str
    options: dict[str, Any]
    weight_bits: int | None = None  # of the layers' matrices, where they are packed
    gpus: int = 1
    parallel: Literal["tensor", "pipeline"] = "tensor"


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    name: str
    options: dict[str, Any]  # one point of a sweep, kind included


@dataclass(frozen=True, slots=True)
class CellMeasure:
    seed: int  # the same for every engine of a (workload, repeat)
    warmup_requests: int
    time_limit_s: float


@dataclass(frozen=True, slots=True)
class ProfileSpec:
    path: str
    digest: str  # of what the file said when the run was planned


@dataclass(frozen=True, slots=True)
class CellSpec:
    """Everything a fresh process needs to run one cell."""

    cell_id: str
    experiment: str
    engine: EngineSpec
    workload: WorkloadSpec
    backend: ResolvedBackend
    label: str
    hardware: str | None
    model: str
    dtype: DType
    budget: Budget
    emulation: Emulation
    measure: CellMeasure
    slo: Slo | None
    repeat: int
    order: int  # position in the run
    max_request_tokens: int | None = None  # prompt and output together, as every engine of the run can hold it
    profile: ProfileSpec | None = None
    predictor: Belief | None = None  # how a policy's beliefs are wrong on purpose
    draw: int = 0  # which of the machines that the catalogue entry may as well describe; 0 is the entry itself
    draws: int = 0  # of so many; with draw 0 the cell tells its figures on each of them, too

    def to_json(self) -> str:
        return _SPEC.dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> CellSpec:
        return _SPEC.validate_json(text)


Point = tuple[WorkloadSpec, Belief | None]
_SPEC: TypeAdapter[CellSpec] = TypeAdapter(CellSpec)


def expand(experiment: Experiment, backend: ResolvedBackend) -> list[CellSpec]:
    """All cells in the order they are run."""
    from engines.hardware import catalogue_names
    from engines.model.config import list_shapes
    from harness.sizing import common_request_tokens

    points = _points(experiment)
    experiment = experiment.model_copy(update={"engines": _engines_on(experiment, backend)})
    cells = []
    for order, (repeat, (workload, believed), engine) in enumerate(_in_order(experiment, points)):
        cell = CellSpec(
            cell_id="",
            experiment=experiment.name,
            engine=EngineSpec(
                engine.kind, engine.name, engine.options, engine.weight_bits, engine.gpus, engine.parallel
            ),
            workload=workload,
            backend=backend,
            label=LABELS[backend],
            hardware=experiment.hardware and _where(experiment.hardware, catalogue_names()),
            model=_where(experiment.model, list_shapes()),
            dtype=experiment.dtype,
            budget=experiment.budget,
            emulation=experiment.emulation,
            measure=CellMeasure(
                seed=cell_seed(experiment.measure.seed, str(workload.options["kind"]), repeat),
                warmup_requests=experiment.measure.warmup_requests,
                time_limit_s=experiment.measure.time_limit_s,
            ),
            slo=experiment.slo,
            repeat=repeat,
            order=order,
            profile=_profile(experiment.profile),
            predictor=believed,
            draws=experiment.measure.draws if backend == "sim" and repeat == 0 and experiment.profile is None else 0,
        )
        cells.append(cell)
    limit = common_request_tokens(cells)
    limited = [replace(cell, max_request_tokens=limit) for cell in cells]
    return [replace(cell, cell_id=cell_id_of(cell)) for cell in limited]


def left_out(experiment: Experiment, backend: ResolvedBackend) -> list[str]:
    """Engines that are there for the simulation of a machine, by name, where the machine itself is at hand."""
    kept = _engines_on(experiment, backend)
    return [engine.name for engine in experiment.engines if engine not in kept]


def _engines_on(experiment: Experiment, backend: ResolvedBackend) -> tuple[EngineChoice, ...]:
    """Packed weights and several GPUs are simulated only. Whoever asks for a backend by name is told so when the cells
    are checked.
    """
    if experiment.backend != "auto" or backend == "sim":
        return experiment.engines
    return tuple(engine for engine in experiment.engines if not engine.simulated_only)


def resolve_backend(experiment: Experiment) -> tuple[ResolvedBackend, str, str]:
    """(backend, label, why). ConfigError when `cuda` is asked for and there is no GPU to run on."""
    if experiment.backend == "auto":
        backend, why = _automatic(experiment)
    elif experiment.backend == "cuda":
        backend, why = "cuda", require_gpu()
    else:
        backend, why = experiment.backend, "asked for"
    return backend, LABELS[backend], why


def cell_seed(seed: int, kind: str, repeat: int) -> int:
    """One per kind and repeat, so that the points of a sweep draw the same requests and differ in what is swept only.

    Mixed, not added: seed 0 repeat 1 must not be seed 1 repeat 0, or a second experiment would repeat the first.
    """
    digest = hashlib.sha256(f"{seed}/{kind}/{repeat}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


def _points(experiment: Experiment) -> list[Point]:
    """Each workload with each belief; the options keep the workload's own name."""
    return [
        (replace(workload, name=workload.name if each is None else each.named(workload.name)), each)
        for workload in _workload_points(experiment)
        for each in beliefs(experiment.predictor)
    ]


def _workload_points(experiment: Experiment) -> list[WorkloadSpec]:
    """Every point of every sweep; two points of one name would overwrite each other's results."""
    from workloads import expand as expand_workload

    points = []
    for choice in experiment.workloads:
        for options in expand_workload(choice.options):
            points.append(WorkloadSpec(str(options["name"]), dict(options)))
    names = [point.name for point in points]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f'workloads: "{name}" is there twice; give each a name: of its own' for name in repeated)
    return points


def _in_order(experiment: Experiment, points: list[Point]) -> Iterator[tuple[int, Point, EngineChoice]]:
    """Interleaved (A B C, C A B, B C A) spreads a machine's slow drifts over the engines; sequential is A A A B B B."""
    engines = list(experiment.engines)
    repeats = range(experiment.measure.repeats)
    if experiment.measure.order == "sequential":
        yield from ((repeat, point, engine) for point in points for engine in engines for repeat in repeats)
        return
    for repeat in repeats:
        shift = repeat % len(engines)
        rotated = engines[len(engines) - shift :] + engines[: len(engines) - shift]
        yield from ((repeat, point, engine) for point in points for engine in rotated)


def cell_id_of(cell: CellSpec) -> str:
    """Readable first, then a hash of all that decides the numbers."""
    identity = asdict(replace(cell, order=0, experiment="", measure=replace(cell.measure, time_limit_s=0.0)))
    for key in ("draw", "draws"):  # told beside the numbers, and no part of what decides them
        del identity[key]
    if cell.engine.weight_bits is None:
        del identity["engine"]["weight_bits"]
    if cell.engine.gpus == 1:
        del identity["engine"]["gpus"], identity["engine"]["parallel"]
    if cell.predictor is None:
        del identity["predictor"]
    canonical = json.dumps(json.loads(_ANY.dump_json(identity)), sort_keys=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    return f"{_slug(cell.engine.name)}-{_slug(cell.workload.name)}-r{cell.repeat}-{digest}"


_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "_", name.lower()).strip("._-")[:40] or "x"


def _where(name: str, known: Iterable[str]) -> str:
    """A name of ours stays as it is; a file or folder of the user's is found wherever the cell's process starts."""
    return name if name in known else str(Path(name).expanduser().resolve())


def _profile(path: str | None) -> ProfileSpec | None:
    from harness.profile_file import digest_of

    return None if path is None else ProfileSpec(_where(path, ()), digest_of(path))


def _automatic(experiment: Experiment) -> tuple[ResolvedBackend, str]:
    from engines.hardware import load_hardware

    assert experiment.hardware is not None, "an experiment with backend auto names its hardware"
    hardware = load_hardware(experiment.hardware)
    gpus, reason = local_gpus()
    if not gpus:
        return "sim", f"no GPU here ({reason}); {hardware.name} is simulated"
    if not hardware.has_gpu(gpus[0].name):
        return "sim", f"the GPU here is a {gpus[0].name}; {hardware.name} is simulated"
    problem = torch_reaches_gpu()
    return ("sim", f"{problem}; {hardware.name} is simulated") if problem else ("cuda", f"a {gpus[0].name} is here")


def require_gpu() -> str:
    """The words for a run on the GPU that is here; ConfigError when there is none."""
    gpus, reason = local_gpus()
    problem = reason if not gpus else torch_reaches_gpu()
    if problem:
        raise ConfigError(f"backend: cuda needs a GPU: {problem}; use --backend sim to simulate, or cpu to emulate")
    return f"asked for; a {gpus[0].name} is here"
