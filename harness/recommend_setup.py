"""What `harness recommend` is asked, as an experiment: the machine that is meant, the engines that could serve there,
each planned for this workload, and why the others could not. Who wins is recommend.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import yaml

from engines.hardware import catalogue_names, load_hardware
from harness.build import check
from harness.config import load_experiment
from harness.errors import ConfigError, UnfitEnvironmentError
from harness.experiment import EngineChoice, Experiment
from harness.gpu import local_gpus
from harness.plan import expand
from harness.several_gpus import PIPELINED
from workloads import build as build_workload

CONFIG = "recommend"


@dataclass(frozen=True, slots=True)
class Question:
    hardware: str  # a machine of the catalogue, a path, or local
    model: str
    workload: str  # a kind, or a mapping as in an experiment
    dtype: str = "float16"
    slo: str | None = None  # such as ttft_s=2,tpot_s=0.1
    price_per_hour: float | None = None
    gpu_memory: str = "auto"  # of it, for weights, KV and workspace
    draws: int = 8
    gpus: int = 1  # of the machine's; every engine is given as many


@dataclass(frozen=True, slots=True)
class Candidates:
    """`sets`: what makes the shipped experiment this one. `ruled_out`: why an engine cannot serve here."""

    hardware: str
    experiment: Experiment
    ruled_out: Mapping[str, str]
    sets: tuple[str, ...]


def candidates(question: Question) -> Candidates:
    """ConfigError where the question makes no sense, or nothing can serve it."""
    machine = _machine(question.hardware)
    sets = _sets(question, machine)
    experiment = _planned(_on_gpus(load_experiment(CONFIG, ["backend=auto", *sets]), question.gpus))
    ruled_out = _ruled_out(experiment)
    left = tuple(each for each in experiment.engines if each.name not in ruled_out)
    if not left:
        raise ConfigError(f"{name}: {why}" for name, why in ruled_out.items())
    return Candidates(machine, experiment.model_copy(update={"engines": left}), ruled_out, tuple(sets))


def _machine(named: str) -> str:
    """`local` is the catalogue's entry for the GPU that is here."""
    if named != "local":
        load_hardware(named)
        return named
    gpus, reason = local_gpus()
    if not gpus:
        raise UnfitEnvironmentError(f"--hardware local: {reason}; name a machine of `harness list hardware`")
    fitting = [name for name in catalogue_names() if load_hardware(name).has_gpu(gpus[0].name)]
    if not fitting:
        raise ConfigError(
            f"--hardware local: the catalogue has no {gpus[0].name}; `harness profile --fit` writes an entry for it"
        )
    return fitting[0]


def _sets(question: Question, machine: str) -> list[str]:
    sets = [
        f"hardware={_scalar(machine)}",
        f"model={_scalar(question.model)}",
        f"dtype={question.dtype}",
        f"workloads=[{on_one_line(_workload(question.workload))}]",
        f"budget.accel_memory={question.gpu_memory}",
    ]
    return sets if question.slo is None else [*sets, f"slo={on_one_line(_slo(question.slo))}"]


def _workload(given: str) -> dict[str, object]:
    """A kind alone is asked for with as many requests as fill a machine and drain it again."""
    try:
        raw = yaml.safe_load(given)
    except yaml.YAMLError as error:
        raise ConfigError(f"--workload: not valid YAML: {' '.join(str(error).split())}") from None
    if isinstance(raw, str):
        raw = {"kind": raw}
    if not isinstance(raw, dict) or "kind" not in raw:
        raise ConfigError("--workload: expected a kind such as chat, or {kind: long_output, prompt: 1000, output: 200}")
    return {"requests": 60, **raw} if raw["kind"] != "trace" else raw


def _slo(given: str) -> dict[str, float]:
    limits = {}
    for part in given.split(","):
        key, equals, text = part.partition("=")
        try:
            limits[key.strip()] = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--slo {given}: expected limits in seconds such as ttft_s=2,tpot_s=0.1")
    return limits


def _on_gpus(experiment: Experiment, gpus: int) -> Experiment:
    """Every layer split over all of them; where no KV is on the host a run of layers each is asked about as well."""
    if gpus == 1:
        return experiment
    engines = []
    for each in experiment.engines:
        options = options_of(each) | {"gpus": gpus}
        engines.append(EngineChoice.model_validate(options))
        if each.kind in PIPELINED and not each.options.get("host_share"):
            piped = {"name": f"{each.name}_pipeline", "parallel": "pipeline"}
            engines.append(EngineChoice.model_validate(options | piped))
    return experiment.model_copy(update={"engines": tuple(engines)})


def _planned(experiment: Experiment) -> Experiment:
    """Planners that place weights for certain lengths and batches are told those of this workload."""
    (workload,) = experiment.workloads
    requests = build_workload(workload.options | {"name": "workload"}, experiment.measure.seed).requests
    lengths = {
        "prompt_tokens": round(fmean(request.prompt_tokens for request in requests)),
        "output_tokens": max(2, round(fmean(request.output_tokens for request in requests))),
    }
    at_once = min(len(requests), experiment.budget.max_batch)
    engines = tuple(_planner(experiment, each, lengths, at_once) for each in experiment.engines)
    return experiment.model_copy(update={"engines": engines})


def _planner(experiment: Experiment, engine: EngineChoice, lengths: dict[str, int], at_once: int) -> EngineChoice:
    """`twinpilots` plans for a number of requests at once: the most, by halves, whose KV fits beside the weights."""
    if engine.kind != "lp_balanced":
        return engine
    planned = EngineChoice.model_validate(options_of(engine) | lengths)
    if engine.options.get("planner") == "flexgen":  # which searches for one
        return planned
    while at_once:
        planned = EngineChoice.model_validate(options_of(engine) | lengths | {"batch": at_once})
        if not _problems(experiment, planned):
            break
        at_once //= 2
    return planned


def _ruled_out(experiment: Experiment) -> dict[str, str]:
    found = {engine.name: _problems(experiment, engine) for engine in experiment.engines}
    return {name: problems[0] for name, problems in found.items() if problems}


def _problems(experiment: Experiment, engine: EngineChoice) -> list[str]:
    """Of this engine on its own: one that cannot run must not cut the workload for the others."""
    return check(expand(experiment.model_copy(update={"engines": (engine,)}), "sim")[0])


def options_of(engine: EngineChoice) -> dict[str, object]:
    bits = {} if engine.weight_bits is None else {"weight_bits": engine.weight_bits}
    gpus = {} if engine.gpus == 1 else {"gpus": engine.gpus, "parallel": engine.parallel}
    return {"kind": engine.kind, "name": engine.name, **bits, **gpus, **engine.options}


def on_one_line(value: object) -> str:
    """YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()


def _scalar(text: str) -> str:
    return yaml.safe_dump(text, width=10_000).removesuffix("...\n").strip()
