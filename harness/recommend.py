"""`harness recommend`: which engine should serve this model on this machine, by how much, and how sure that is.

Every engine of the shipped experiment `recommend` is simulated on the machine, with the real schedulers, and on
machines drawn from the ranges of its constants. How far ahead an engine must be to be worth its trouble is said here.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.answers import Answer, Progress, Range, Values, ratios, simulate
from harness.cost_accuracy import cost_model_error
from harness.errors import ConfigError
from harness.experiment import EngineChoice, Experiment
from harness.plan import expand
from harness.recommend_setup import CONFIG, Candidates, Question, candidates, on_one_line, options_of

BASELINE = "gpu_only"
RATE, GOODPUT = "output_tokens_per_s_whole_run", "goodput_rps_whole_run"
NONE_AS_IT_IS = "The model does not fit as it is: only packed weights can be served."
WORTHWHILE = 1.05  # less of a gain than this is not worth a second memory to look after


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
    cost_model_error: str
    ranked_by: str
    ranked: tuple[Ranked, ...]
    ruled_out: tuple[tuple[str, str], ...]  # engine, why
    verdicts: tuple[str, ...]
    command: str


def recommended(question: Question, progress: Progress = lambda done, of: None) -> Recommendation:
    """ConfigError where the question makes no sense, or nothing can serve it."""
    asked = candidates(question)
    experiment = asked.experiment
    answers = simulate(expand(experiment, "sim"), question.draws, progress=progress)
    by = RATE if experiment.slo is None else GOODPUT
    ranked = _ranked(experiment, answers, by, question.price_per_hour)
    if not ranked:
        raise ConfigError("recommend: no engine finished a request of this workload")
    return Recommendation(
        label="simulated",
        hardware=asked.hardware,
        cost_model_error=cost_model_error(asked.hardware),
        ranked_by=by.removesuffix("_whole_run"),
        ranked=ranked,
        ruled_out=tuple(asked.ruled_out.items()),
        verdicts=_verdicts(ranked),
        command=_command(asked, ranked[0]),
    )


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


def _row(answer: Answer, choice: EngineChoice, by: str, baseline: Values | None, price: float | None) -> Ranked | None:
    score, rate = Range.of(answer.values(by)), Range.of(answer.values(RATE))
    if score is None or rate is None or not rate.low > 0:
        return None
    return Ranked(
        engine=choice.name,
        choice=options_of(choice),
        own_weights=choice.weight_bits is None and not choice.options.get("compress"),
        score=score,
        tokens_per_s=rate,
        ttft_s=Range.of(answer.values("ttft_s_mean")),
        tpot_s=Range.of(answer.values("tpot_s_mean")),
        over_baseline=None if baseline is None else Range.of(ratios(answer.values(by), baseline)),
        cost_per_million=None if price is None else _cost(rate, price),
        decided=False,
    )


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
        return f"Use {best.engine}: {BASELINE} cannot serve this here, and it is the fastest of what can, {sure}."
    if best.engine.startswith(BASELINE):  # a pipeline of GPUs is one, too
        return f"Do not offload: {best.engine} is the fastest of all that run this model as it is."
    gain = best.over_baseline
    assert gain is not None
    span = f"{gain.value:.2f} times gpu_only ({gain.low:.2f}-{gain.high:.2f} within the catalogue's ranges)"
    if gain.high < WORTHWHILE:
        return f"Do not offload: the best hybrid, {best.engine}, is {span}: not worth a second memory to look after."
    if gain.low >= WORTHWHILE:
        return f"Use {best.engine}: {span}."
    return f"The constants do not decide: {best.engine} is {span}. Measure both before you offload."


def _command(asked: Candidates, winner: Ranked) -> str:
    """The winner beside the baseline, for whoever has the machine; elsewhere it is simulated again, with records."""
    names = dict.fromkeys((BASELINE, winner.engine))
    engines = [options_of(each) for name in names for each in asked.experiment.engines if each.name == name]
    sets = [*asked.sets, f"engines={on_one_line(engines)}"]
    return shlex.join(["harness", "run", "--config", CONFIG, *(word for each in sets for word in ("--set", each))])
