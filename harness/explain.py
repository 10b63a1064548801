"""`harness explain run`: what each engine would decide in one state, and the times and the inequality behind it.

The state is made up: so many decodes with their KV on the accelerator, so many on the host, all with one context. The
policies and the predictor are the real ones; nothing runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from engines.apex.paper import decode_bound
from engines.apex.situation import Situation
from engines.core.cost import Predictor
from engines.core.hybrid import two_sided
from engines.core.policy import Decision, Policy, View
from engines.core.request import Phase, Request
from engines.core.types import Capabilities, Limits, Mode, RequestSpec, Tier
from engines.registry import is_policy, make_engine
from harness.costs import predictor
from harness.errors import ConfigError
from harness.ideal import Ideal
from harness.plan import CellSpec
from harness.sizing import capabilities, size
from harness.steady import State

ANSWER_TOKENS = 64  # still to come for each; no decision depends on it


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one layer, and what equation 6 makes of them. None where a side has no rows."""

    linear_s: float
    accel_attention_s: float
    host_attention_s: float
    r: float
    gpu_over_cpu: float | None
    bound: float | None
    asymmetric_beats_gpu_only: bool | None


@dataclass(frozen=True, slots=True)
class ModeRate:
    mode: str
    tokens_per_s: float  # predicted


@dataclass(frozen=True, slots=True)
class Choice:
    """What one engine would do. `waited_for`: host decodes that keep up, and how long the pass waits at a layer."""

    engine: str
    mode: str
    accel_decodes: int
    host_decodes: tuple[int, ...]  # of each batch
    waited_for: int
    patience_us: int | None
    flying: int  # in a cohort that lags behind
    standing: int  # host decodes that this step leaves out
    placement: str = ""  # of weights and KV, where they are not all on the accelerator


@dataclass(frozen=True, slots=True)
class Explanation:
    label: str
    state: State
    times: Times
    modes: tuple[ModeRate, ...]
    choices: tuple[Choice, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(
    cells: Sequence[CellSpec],
    engine: str | None = None,
    accel_rows: int | None = None,
    host_rows: int | None = None,
    context: int = 1000,
) -> Explanation:
    """Rows that are not given: as many as the accelerator's blocks hold, and four times as many on the host."""
    ours = {cell.engine.name: cell for cell in cells if is_policy(cell.engine.kind)}
    if engine is not None:
        if engine not in ours:
            raise ConfigError(f"engine {engine}: is none of this experiment's schedulers: {', '.join(ours) or 'none'}")
        ours = {engine: ours[engine]}
    if not ours:
        raise ConfigError("explain run: no engine of this experiment decides for our scheduler")
    some = next(iter(ours.values()))
    predict = predictor(some)
    if predict is None:
        raise ConfigError("explain run: there is nothing to predict by; use --backend sim, or give a profile")
    held = _capabilities(some).accel.tokens // (context + 1)
    accel = held if accel_rows is None else accel_rows
    state = State(context, accel, 4 * max(accel, 1) if host_rows is None else host_rows)
    if not state.accel_rows + state.host_rows:
        raise ConfigError("explain run: nobody decodes; give --accel-rows or --host-rows")
    choices = []
    for name, cell in ours.items():
        view = _view(state, _capabilities(cell), cell, predict)
        view.placement = placement = size(cell).placement
        choice = _choice(name, _policy(cell).decide(view), state)
        choices.append(choice if placement is None else replace(choice, placement=str(placement)))
    view = _view(state, _capabilities(some), some, predict)
    rates = Situation(two_sided(view), view).rates()
    modes = tuple(ModeRate(mode.value, tokens_per_s) for mode, tokens_per_s in rates.items())
    return Explanation("predicted", state, _times(state, predict, view.capabilities.layers), modes, tuple(choices))


def _policy(cell: CellSpec) -> Policy:
    policy: Policy = make_engine(cell.engine.kind, cell.engine.options)
    return policy


def _capabilities(cell: CellSpec) -> Capabilities:
    return capabilities(cell, size(cell), _policy(cell))


def _view(state: State, caps: Capabilities, cell: CellSpec, predict: Predictor) -> View:
    """Who decodes on the accelerator came first; nobody waits, and each has room for its next token."""
    page_tokens = {tier: caps.tier(tier).page_tokens for tier in (Tier.ACCEL, Tier.HOST)}
    there = state.host_rows if caps.host.blocks else 0  # an engine without KV there lets them wait
    sides = [Tier.ACCEL] * state.accel_rows + [Tier.HOST] * there
    running = [_decoding(number, tier, state.context, page_tokens[tier]) for number, tier in enumerate(sides)]
    rows = len(running)
    limits = Limits(max(cell.budget.max_batch, rows), max(cell.budget.max_batch_tokens, rows))
    # No room on the accelerator: nobody is to be brought back, or the state would be another one.
    return View(running, (), {Tier.ACCEL: 0, Tier.HOST: caps.host.blocks}, page_tokens, limits, caps, predict)


def _decoding(number: int, tier: Tier, context: int, page_tokens: int) -> Request:
    request = Request(RequestSpec(number, context, ANSWER_TOKENS), number)
    request.phase, request.tier, request.slot, request.started = Phase.RUNNING, tier, number, True
    request.computed, request.known = context - 1, context
    request.blocks = list(range(-(-context // page_tokens)))
    request.capacity = len(request.blocks) * page_tokens
    return request


def _times(state: State, predict: Predictor, layers: int) -> Times:
    ideal = Ideal(predict, state, layers)
    linear_s, host_s = ideal.linear_s(max(state.accel_rows, 1)), ideal.host_s(state.host_rows)
    if not state.accel_rows:
        return Times(linear_s, 0.0, host_s, 0.0, None, None, None)
    if not state.host_rows:
        return Times(linear_s, ideal.accel_s, host_s, ideal.r, None, None, None)
    ratio, bound = ideal.gpu_over_cpu, decode_bound(ideal.r)
    return Times(linear_s, ideal.accel_s, host_s, ideal.r, ratio, bound, ratio < bound)


def _choice(engine: str, decision: Decision, state: State) -> Choice:
    attends = decision.mode is not Mode.GPU_ONLY  # an engine that never decodes there lets them wait
    host = tuple(len(batch.host_decodes) for batch in decision.batches) if attends else ()
    joined = [cohort for cohort in decision.cohorts if cohort.patience_us]
    flying = sum(len(cohort.requests) for cohort in decision.cohorts if not cohort.patience_us)
    waited_for = sum(len(cohort.requests) for cohort in joined)
    return Choice(
        engine=engine,
        mode=decision.mode.value,
        accel_decodes=sum(len(batch.decodes) for batch in decision.batches),
        host_decodes=host,
        waited_for=waited_for,
        patience_us=joined[0].patience_us if joined else None,
        flying=flying,
        standing=state.host_rows - sum(host) - waited_for - flying,
    )
