"""What offline generation is asked for, checked before any model is loaded. The generating itself is generate.py's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import yaml

from engines.registry import option_mistakes
from harness.checks import require_native
from harness.errors import ConfigError
from harness.experiment import Backend, DType
from harness.gpu import local_gpus, torch_reaches_gpu
from harness.plan import ResolvedBackend, require_gpu


def checked_options(engine: str, options: Mapping[str, Any], policy_options: Sequence[str]) -> dict[str, Any]:
    """The options with the policy's under "policy_options"; ConfigError with one line per mistake."""
    problems = []
    if options["dtype"] not in get_args(DType):
        problems.append(f"--dtype {options['dtype']}: expected one of {', '.join(get_args(DType))}")
    if options["emulation"] not in ("native", "paced"):
        problems.append(f"--emulation {options['emulation']}: expected native or paced")
    if options["emulation"] == "paced" and options["hardware"] is None:
        problems.append("--emulation paced needs --hardware, the machine to be paced to")
    policy = {}
    for argument in policy_options:
        key, equals, text = argument.partition("=")
        if not key or not equals:
            problems.append(f"--policy-option {argument}: expected KEY=VALUE")
            continue
        try:
            policy[key] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            problems.append(f"--policy-option {argument}: {text!r} is not a YAML value")
    for name, message in option_mistakes(engine, policy):
        where = f"--engine {engine}" if name in ("", "kind") else f"--policy-option {name}"
        problems.append(f"{where}: {message}")
    if problems:
        raise ConfigError(problems)
    return {**options, "policy_options": policy}


def token_backend(backend: Backend) -> ResolvedBackend:
    """A backend that computes tokens, so `auto` is never `sim` here."""
    if backend == "auto":
        resolved: ResolvedBackend = "cuda" if local_gpus()[0] and not torch_reaches_gpu() else "cpu"
    else:
        resolved = backend
    if resolved == "sim":
        raise ConfigError("--backend sim computes no tokens; use cpu or cuda")
    if resolved == "cuda":
        require_gpu()
    require_native(resolved)
    return resolved
