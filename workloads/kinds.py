"""The kinds of workload by name, and `build`, which makes one entry of a configuration into a `Workload`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workloads import fitted
from workloads.conversations import multi_turn
from workloads.options import Options, shown
from workloads.replay import trace
from workloads.synthetic import Build, batch, fitted_to, long_output
from workloads.types import Workload, WorkloadError

COMMON_DEFAULTS: Mapping[str, object] = {"name": None, "rate": None, "arrivals": None, "scale": 1.0}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # names become file names


@dataclass(frozen=True, slots=True)
class WorkloadKind:
    """`defaults` are the kind's own keys, those in COMMON_DEFAULTS aside; None has no default."""

    description: str
    defaults: Mapping[str, object]
    build: Build


KINDS: Mapping[str, WorkloadKind] = {
    "chat": WorkloadKind(
        "conversation service, fitted to Azure-conv: about 1,155 tokens in, 211 out",
        {"requests": 300},
        fitted_to(fitted.AZURE_CONV, fitted.AZURE_CONV_SOURCE),
    ),
    "cot": WorkloadKind(
        "reasoning: a short prompt, 1,000-8,000 tokens out, about 3,200 (an estimate)",
        {"requests": 200},
        fitted_to(fitted.REASONING, fitted.REASONING_SOURCE),
    ),
    "long_output": WorkloadKind(
        "one prompt length and one output length, both +- jitter; give lists to sweep",
        {"requests": 100, "prompt": 1000, "output": 200, "jitter": 0.1},
        long_output,
    ),
    "code": WorkloadKind(
        "code completion, fitted to Azure-code: about 2,048 tokens in, 28 out; hybrids should not win here",
        {"requests": 300},
        fitted_to(fitted.AZURE_CODE, fitted.AZURE_CODE_SOURCE),
    ),
    "summarize": WorkloadKind(
        "summaries, fitted to OSC: about 372 tokens in, 45 out",
        {"requests": 300},
        fitted_to(fitted.OSC, fitted.OSC_SOURCE),
    ),
    "batch": WorkloadKind(
        "equal requests, all at once; more requests than batch are kept batch at a time in flight",
        {"requests": None, "batch": 8, "prompt": 896, "output": 128},
        batch,
    ),
    "multi_turn": WorkloadKind(
        "conversations whose prompt is all that was said before; rate is of conversations",
        {"requests": 200, "turns": 4, "think_s": 10.0},
        multi_turn,
    ),
    "trace": WorkloadKind(
        "replay of a file: Azure CSV, BurstGPT CSV, Mooncake JSONL, JSONL of arrival_s, prompt_tokens, output_tokens",
        {"requests": None, "path": None, "format": "auto"},
        trace,
    ),
}


def build(options: Mapping[str, object], seed: int) -> Workload:
    """The workload that one entry such as {"kind": "chat", "rate": 0.8, "requests": 300} asks for.

    A function of `options` and `seed` alone (and of the file, for a trace). Changing the rate or the arrivals changes
    no length; more requests extend a workload whose beginning stays as it was.
    """
    kind, checked = checked_options(options)
    return KINDS[kind].build(checked, seed)


def checked_options(options: Mapping[str, object]) -> tuple[str, Options]:
    """The entry's kind, and its options with every key known and every default filled in. Values are not yet read."""
    kind = Options("workload", {"kind": options.get("kind")}, {"kind": None}).choice("kind", KINDS)
    name = options.get("name")
    if name is None:
        name = _default_name(kind, options)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise WorkloadError(f"workload {kind}: name must be letters, digits, '.', '_', '-', not {shown(name)}")
    known = {"kind": None, **COMMON_DEFAULTS, **KINDS[kind].defaults}
    return kind, Options(f"workload {name}", {**options, "name": name}, known)


def _default_name(kind: str, options: Mapping[str, object]) -> str:
    """The kind, and for traces the file's name, because an experiment often replays several."""
    path = options.get("path")
    if kind != "trace" or not isinstance(path, str):
        return kind
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem)[:80].strip("-.")
    return f"trace-{stem}" if stem else kind
