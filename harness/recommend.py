"""`harness recommend`: which engine should serve this model on this machine, by how much, and how sure that is.

Every engine of the shipped experiment `recommend` is simulated on the machine, with the real schedulers, and on
machines drawn from the ranges of its constants. How far ahead an engine must be to be worth its trouble is said here.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import yaml

from engines.hardware import catalogue_names, load_hardware
from harness.answers import Answer, Progress, simulate
from harness.build import check
from harness.config import load_experiment
from harness.errors import ConfigError, UnfitEnvironmentError
from harness.experiment import EngineChoice, Experiment
from harness.gpu import local_gpus
from harness.plan import expand
from workloads import build as build_workload

CONFIG = "recommend"
BASELINE = "gpu_only"
RATE, GOODPUT = "output_tokens_per_s_whole_run", "goodput_rps_whole_run"
NONE_AS_IT_IS = "The model does not fit as it is: only packed weights can be served."
WORTHWHILE = 1.05  # less of a gain than this is not worth a second memory to look after


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


@dataclass(frozen=True, slots=True)
class Range:
    """`low` and `high`: over the drawn machines and the entry's own."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Range | None:
        found = [value for value in values if value is not None]
        return None if values[0] is None else cls(values[0], min(found), max(found))


@dataclass(frozen=True, slots=True)
class Ranked:
    """One engine with its settings. `over_baseline`: of what is ranked by, machine by machine."""

    engine: str
    choice: dict[str, object]
    own_weights: bool  # or packed ones, which answer a little differently
    score: Range
    tokens_per_s: Range
    ttft_s: Range | None
    tpot_s: Range | None
    over_baseline: Range | None
    cost_per_million: Range | None
    decided: bool  # no other engine is ahead on any of the machines


@dataclass(frozen=True, slots=True)
class Recommendation:
    label: str
    hardware: str
    ranked_by: str
    ranked: tuple[Ranked, ...]
    ruled_out: tuple[tuple[str, str], ...]  # engine, why
    verdicts: tuple[str, ...]
    command: str


def recommended(question: Question, progress: Progress = lambda done, of: None) -> Recommendation:
    """ConfigError where the question makes no sense, or nothing can serve it."""
    machine = _machine(question.hardware)
    experiment = load_experiment(CONFIG, _sets(question, machine))
    experiment = _planned(experiment)
    ruled_out = _ruled_out(experiment)
    left = tuple(each for each in experiment.engines if each.name not in ruled_out)
    if not left:
        raise ConfigError(f"{name}: {why}" for name, why in ruled_out.items())
    experiment = experiment.model_copy(update={"engines": left})
    answers = simulate(expand(experiment, "sim"), question.draws, progress=progress)
    by = RATE if experiment.slo is None else GOODPUT
    ranked = _ranked(experiment, answers, by, question.price_per_hour)
    if not ranked:
        raise ConfigError("recommend: no engine finished a request of this workload")
    winner = ranked[0]
    return Recommendation(
        label="simulated",
        hardware=machine,
        ranked_by=by.removesuffix("_whole_run"),
        ranked=ranked,
        ruled_out=tuple(ruled_out.items()),
        verdicts=_verdicts(ranked),
        command=_command(question, machine, experiment, winner),
    )


# --- the experiment ---------------------------------------------------------------------------------------------------


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
        "backend=auto",
        f"hardware={_scalar(machine)}",
        f"model={_scalar(question.model)}",
        f"dtype={question.dtype}",
        f"workloads=[{_flow(_workload(question.workload))}]",
        f"budget.accel_memory={question.gpu_memory}",
    ]
    return sets if question.slo is None else [*sets, f"slo={_flow(_slo(question.slo))}"]


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
    planned = EngineChoice.model_validate(_choice(engine) | lengths)
    if engine.options.get("planner") == "flexgen":  # which searches for one
        return planned
    while at_once:
        planned = EngineChoice.model_validate(_choice(engine) | lengths | {"batch": at_once})
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


# --- the ranking ------------------------------------------------------------------------------------------------------


def _ranked(experiment: Experiment, answers: Sequence[Answer], by: str, price: float | None) -> tuple[Ranked, ...]:
    choices = {each.name: each for each in experiment.engines}
    scores = {a.cell.engine.name: a.values(by) for a in answers}
    rows = [
        row
        for answer in answers
        if (row := _row(answer, choices[answer.cell.engine.name], by, scores.get(BASELINE), price)) is not None
    ]
    rows.sort(key=lambda row: row.score.value, reverse=True)
    return tuple(replace(row, decided=_is_decided(row.engine, scores)) for row in rows)


def _row(
    answer: Answer, choice: EngineChoice, by: str, baseline: Sequence[float | None] | None, price: float | None
) -> Ranked | None:
    score, rate = Range.of(answer.values(by)), Range.of(answer.values(RATE))
    if score is None or rate is None or not rate.low > 0:
        return None
    return Ranked(
        engine=choice.name,
        choice=_choice(choice),
        own_weights=choice.weight_bits is None and not choice.options.get("compress"),
        score=score,
        tokens_per_s=rate,
        ttft_s=Range.of(answer.values("ttft_s_mean")),
        tpot_s=Range.of(answer.values("tpot_s_mean")),
        over_baseline=None if baseline is None else Range.of(_ratios(answer.values(by), baseline)),
        cost_per_million=None if price is None else _cost(rate, price),
        decided=False,
    )


def _ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float | None]:
    return [a / b if a is not None and b else None for a, b in zip(ours, theirs, strict=True)]


def _cost(rate: Range, price_per_hour: float) -> Range:
    value, low, high = (price_per_hour / 3600 / tokens * 1e6 for tokens in (rate.value, rate.high, rate.low))
    return Range(value, low, high)


def _is_decided(engine: str, scores: dict[str, tuple[float | None, ...]]) -> bool:
    machines = list(zip(*scores.values(), strict=True))
    place = list(scores).index(engine)
    return all(row[place] == max(value for value in row if value is not None) for row in machines if any(row))


# --- in words ---------------------------------------------------------------------------------------------------------


def _verdicts(ranked: Sequence[Ranked]) -> tuple[str, ...]:
    """What to do with the model as it is; then, where packed weights are ahead, what those would bring."""
    own = [row for row in ranked if row.own_weights]
    lines = [_own_verdict(own) + _near(own)] if own else [NONE_AS_IT_IS]
    best = ranked[0]
    if not best.own_weights and own:
        gain = best.score.value / own[0].score.value
        tail = "which need no host at all" if best.engine.startswith(BASELINE) else "and the host's help"
        lines.append(
            f"Packed weights go further: {best.engine} is {gain:.2f} times {own[0].engine}, with weights in fewer bits "
            f"{tail}. Its answers are those of other weights: check their quality first."
        )
    return tuple(lines)


def _near(own: Sequence[Ranked]) -> str:
    """Who is as good for all that a simulation can tell."""
    best, *others = own
    near = [row.engine for row in others if row.score.value * WORTHWHILE > best.score.value]
    return f" Within 5 % of it: {', '.join(near)}." if near else ""


def _own_verdict(own: Sequence[Ranked]) -> str:
    best = own[0]
    baseline = next((row for row in own if row.engine == BASELINE), None)
    if baseline is None:
        sure = "on every machine within the catalogue's ranges" if best.decided else "though not on every such machine"
        return f"Use {best.engine}: the weights do not fit the GPU, and it is the fastest of what can run, {sure}."
    if best.engine == BASELINE:
        return "Do not offload: gpu_only is the fastest of all that run this model as it is."
    gain = best.over_baseline
    assert gain is not None
    span = f"{gain.value:.2f} times gpu_only ({gain.low:.2f}-{gain.high:.2f} within the catalogue's ranges)"
    if gain.high < WORTHWHILE:
        return f"Do not offload: the best hybrid, {best.engine}, is {span}: not worth a second memory to look after."
    if gain.low >= WORTHWHILE:
        return f"Use {best.engine}: {span}."
    return f"The constants do not decide: {best.engine} is {span}. Measure both before you offload."


def _command(question: Question, machine: str, experiment: Experiment, winner: Ranked) -> str:
    """The winner beside the baseline, for whoever has the machine; elsewhere it is simulated again, with records."""
    names = dict.fromkeys((BASELINE, winner.engine))
    engines = [_choice(each) for name in names for each in experiment.engines if each.name == name]
    sets = [*_sets(question, machine)[1:], f"engines={_flow(engines)}"]
    return shlex.join(["harness", "run", "--config", CONFIG, *(word for each in sets for word in ("--set", each))])


def _choice(engine: EngineChoice) -> dict[str, object]:
    bits = {} if engine.weight_bits is None else {"weight_bits": engine.weight_bits}
    return {"kind": engine.kind, "name": engine.name, **bits, **engine.options}


def _flow(value: object) -> str:
    """YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()


def _scalar(text: str) -> str:
    return yaml.safe_dump(text, width=10_000).removesuffix("...\n").strip()
