"""Which engines there are: an explicit dict of ours, and entry points (group "harness.engines") of third parties.

Nothing is imported until an engine is asked for, so a broken plugin breaks only itself. An engine is a frozen dataclass
whose fields are the options that a configuration may set. With `decide` it is a policy on our scheduler core
(core/policy.py), with `open` an engine of its own (core/adapter.py: Served).
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from engines.suggest import did_you_mean

PLUGIN_GROUP = "harness.engines"


class EngineError(ValueError):
    """An engine that cannot be had, or options that it does not take; one line per mistake."""


@dataclass(frozen=True, slots=True)
class EngineEntry:
    kind: str
    target: str  # "module:Class"
    summary: str
    status: str  # "ours", or the distribution that brings it


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
            kind="mock",
            target="engines.mock.law:LatencyLaw",
            summary="no model: a known latency law, for tests and for the driver's own error",
            status="ours",
        ),
    )
}


def known_engines() -> dict[str, EngineEntry]:
    """Ours and the plugins', by kind. A plugin cannot replace one of ours."""
    found = {point.name: point for point in entry_points(group=PLUGIN_GROUP)}
    plugins = {
        name: EngineEntry(name, point.value, "a plugin", f"plugin {point.dist.name if point.dist else 'unknown'}")
        for name, point in sorted(found.items())
    }
    return plugins | BUILT_IN


def engine_class(kind: str) -> type[Any]:
    """Import an engine. Whatever a plugin raises becomes one line."""
    engines = known_engines()
    if kind not in engines:
        raise EngineError(f'unknown engine "{kind}"; {did_you_mean(kind, engines)}')
    entry = engines[kind]
    module, _, name = entry.target.partition(":")
    where = f'engine "{kind}" ({entry.status})'
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EngineError(f"{where} cannot be loaded from {entry.target}: {reason}") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise EngineError(f"{where}: {entry.target} is not a dataclass of options")
    if not (hasattr(found, "decide") or hasattr(found, "open")):
        raise EngineError(f"{where}: {entry.target} has neither decide (a policy) nor open (an engine of its own)")
    return found


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
    values, mistakes = _typed_options(engine, options)
    if not mistakes:
        try:
            engine(**values)
        except (TypeError, ValueError) as error:
            mistakes.append(("", " ".join(str(error).split())))
    return mistakes


def make_engine(kind: str, options: Mapping[str, Any]) -> Any:
    """An engine with these options; EngineError with one line per mistake."""
    mistakes = option_mistakes(kind, options)
    if mistakes:
        lines = (f'engine "{kind}"{f", option {name}" if name else ""}: {message}' for name, message in mistakes)
        raise EngineError("\n".join(lines))
    engine = engine_class(kind)
    return engine(**_typed_options(engine, options)[0])


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
