"""Which engines there are: an explicit dict of ours, and what third parties bring (plugins.py).

Nothing is imported until an engine is asked for, so a broken plugin breaks only itself. An engine is a frozen dataclass
whose fields are the options that a configuration may set. With `decide` it is a policy on our scheduler core
(core/policy.py), with `open` an engine of its own (core/adapter.py: Served).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, get_type_hints

from engines.plugins import claims, one_line, raised
from engines.suggest import did_you_mean

# What an engine must have beside the method that tells the two apart; README.md shows one of each.
POLICY = ("name", "uses_host_kv", "partition", "decide")
OF_ITS_OWN = ("runs_model", "problems", "open")


class EngineError(ValueError):
    """An engine that cannot be had, or options that it does not take; one line per mistake."""


@dataclass(frozen=True, slots=True)
class EngineEntry:
    kind: str
    target: str  # "module:Class"
    summary: str
    status: str  # "ours", or the distribution that brings it
    problem: str = ""  # of a plugin that cannot be had; what shows without loading it


BUILT_IN: dict[str, EngineEntry] = {
    entry.kind: entry
    for entry in (
        EngineEntry(
            kind="gpu_only",
            target="engines.gpu_only.policy:GpuOnly",
            summary="all KV on the GPU, decode and chunked prefill in one batch, as vLLM does it",
            status="ours",
        ),
        EngineEntry(
            kind="static_partition",
            target="engines.static_partition.policy:StaticPartition",
            summary="the first layers live and run on the host, as llama.cpp does it; nothing overlaps",
            status="ours",
        ),
        EngineEntry(
            kind="weight_streaming",
            target="engines.weight_streaming.policy:WeightStreaming",
            summary="weights that do not fit come over the link for every step, as Accelerate offloads them",
            status="ours",
        ),
        EngineEntry(
            kind="lp_balanced",
            target="engines.lp_balanced.policy:LpBalanced",
            summary="weights and operators placed by linear programs, as TwinPilots (online) and FlexGen (offline) do",
            status="ours",
        ),
        EngineEntry(
            kind="neo",
            target="engines.neo.policy:Neo",
            summary="two halves take turns on the GPU while the host attends for the other one, as NEO does it",
            status="ours",
        ),
        EngineEntry(
            kind="apex",
            target="engines.apex.policy:Apex",
            summary="host decodes fly asynchronously, keep up, or take turns, as predicted: a reconstruction of APEX",
            status="ours",
        ),
        EngineEntry(
            kind="vllm",
            target="engines.vllm.options:Vllm",
            summary="the real vLLM, in a process and an environment of its own",
            status="ours",
        ),
        EngineEntry(
            kind="openai",
            target="engines.openai.options:OpenAi",
            summary="any OpenAI-compatible endpoint, measured at the client",
            status="ours",
        ),
        EngineEntry(
            kind="hf",
            target="engines.hf.options:HuggingFace",
            summary="transformers' generate with static batching, and Accelerate's offload, in a process of its own",
            status="ours",
        ),
        EngineEntry(
            kind="mock",
            target="engines.mock.law:LatencyLaw",
            summary="no model: a known latency law, for tests and for the driver's own error",
            status="ours",
        ),
    )
}


def engine_entries() -> list[EngineEntry]:
    """Ours, then all that others claim to bring, also what cannot be used."""
    plugins = (EngineEntry(claim.kind, claim.target, "", claim.origin, claim.problem) for claim in claims(BUILT_IN))
    return [*BUILT_IN.values(), *plugins]


def known_engines() -> dict[str, EngineEntry]:
    """Ours and the plugins', by kind. A plugin cannot replace one of ours."""
    return {entry.kind: entry for entry in engine_entries()} | BUILT_IN


def engine_class(kind: str) -> type[Any]:
    """Import an engine. Whatever a plugin raises becomes one line."""
    entry = _entry(kind)
    found = load(entry)
    if isinstance(found, str):
        raise EngineError(f'engine "{kind}" ({entry.status}): {found}')
    return found


def load(entry: EngineEntry) -> type[Any] | str:
    """The class, or in one line why there is none and what to do about it.

    Importing runs somebody else's code: it may ask Python to exit, or print where others expect JSON.
    """
    if entry.problem:
        return entry.problem
    module, _, name = entry.target.partition(":")
    advice = "" if entry.kind in BUILT_IN else f"; reinstall or remove {entry.status}"
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = attrgetter(name)(importlib.import_module(module))
            unfit = _unfit(found)
    except BaseException as error:
        return f"cannot be loaded from {entry.target}: {raised(error)}{advice}"
    return f"{entry.target} {unfit}; see engines/README.md" if unfit else found


def _unfit(found: Any) -> str:
    """What keeps it from being an engine."""
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        return "is not a dataclass of options"
    has = {*dir(found), *(field.name for field in dataclasses.fields(found))}
    if not has & {"decide", "open"}:
        return "has neither decide (a policy) nor open (an engine of its own)"
    lacking = [name for name in (POLICY if "decide" in has else OF_ITS_OWN) if name not in has]
    return f"lacks {', '.join(lacking)}" if lacking else ""


def why_unavailable(kind: str) -> str | None:
    """Why this engine cannot be had on this machine and what to do about it, where its class says so."""
    ask = getattr(engine_class(kind), "unavailable", None)
    if ask is None:
        return None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            reason = ask()
        return one_line(reason) if reason else None
    except BaseException as error:
        return f"its unavailable() raised {raised(error)}; upgrade or remove it"


def summary_of(kind: str) -> str:
    """What it does, in one line: ours as said above, a plugin by its `summary` or how its docstring begins."""
    entry, found = _entry(kind), engine_class(kind)
    told = getattr(found, "summary", None)
    if entry.summary or isinstance(told, str):
        return entry.summary or one_line(told)
    first = one_line((found.__doc__ or "").strip().partition("\n")[0])
    return "" if first.startswith(f"{found.__name__}(") else first  # dataclass writes a signature where nothing is said


def _entry(kind: str) -> EngineEntry:
    """Of ours without a look at what others have installed."""
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    engines = known_engines()
    if kind not in engines:
        raise EngineError(f'unknown engine "{kind}"; {did_you_mean(kind, engines)}')
    return engines[kind]


def is_policy(kind: str) -> bool:
    """True: it decides for our scheduler core. False: an engine of its own, which is opened and served."""
    return hasattr(engine_class(kind), "decide")


def option_names(kind: str) -> list[str]:
    return [field.name for field in dataclasses.fields(engine_class(kind)) if field.init]


def option_mistakes(kind: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(option, what is wrong with it) for every option that this engine cannot take; "" is the engine itself."""
    try:
        engine = engine_class(kind)
    except EngineError as error:
        return [("kind", str(error))]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            values, mistakes = _typed_options(engine, options)
            if not mistakes:
                _ask(engine(**values))
    except (TypeError, ValueError) as error:
        return [("", one_line(error))]
    except BaseException as error:  # a plugin may raise anything
        return [("", raised(error))]
    return mistakes


def make_engine(kind: str, options: Mapping[str, Any]) -> Any:
    """An engine with these options; EngineError with one line per mistake."""
    mistakes = option_mistakes(kind, options)
    if mistakes:
        lines = (f'engine "{kind}"{f", option {name}" if name else ""}: {message}' for name, message in mistakes)
        raise EngineError("\n".join(lines))
    engine = engine_class(kind)
    return engine(**_typed_options(engine, options)[0])


def _ask(engine: Any) -> None:
    """What the harness will want to know before anything runs: who cannot answer is found out here."""
    for name in ("name", "uses_host_kv") if hasattr(engine, "decide") else ("runs_model",):
        getattr(engine, name)


def _typed_options(engine: type[Any], options: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Options as the types the fields declare, and what is wrong with those that are not."""
    from pydantic import TypeAdapter, ValidationError  # slow to import, and listing does not need it

    names = [field.name for field in dataclasses.fields(engine) if field.init]
    hints = get_type_hints(engine)
    values: dict[str, Any] = {}
    mistakes: list[tuple[str, str]] = []
    for name, value in options.items():
        if name not in names:
            mistakes.append((name, f"unknown option; {did_you_mean(name, names)}"))
            continue
        try:
            values[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            mistakes.append((name, f"{problem.removeprefix('Input ')}, not {value!r}"))
    for field in dataclasses.fields(engine):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.init and not has_default and field.name not in options:
            mistakes.append((field.name, "missing"))
    return values, mistakes
