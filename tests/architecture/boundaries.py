"""Who may import whom, as a table, and the check against it. The reasons are in the design: the cut at the plan."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.architecture.sources import PACKAGES, Import, Module, imports

# The longest prefix that fits decides. What is in `engines` and not named here is an engine: see `_may_import`.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "workloads": ("workloads",),
    "results": ("results",),
    "reports": ("reports", "results"),
    "harness": PACKAGES,
    "engines": (),
    "engines.suggest": (),
    "engines.plugins": (),
    "engines.registry": ("engines.plugins", "engines.suggest"),
    "engines.core": ("engines.core",),
    "engines.model": ("engines.model",),
    "engines.hardware": ("engines.hardware", "engines.suggest"),
    "engines.apex": ("engines.apex.modes", "engines.apex.paper", "engines.apex.situation", "engines.core"),
    "engines.apex.attention": ("engines.apex._cpu",),
    "engines.process": ("engines.process", "engines.core"),
    "engines.vllm": ("engines.vllm", "engines.process", "engines.core"),
    "engines.hf": ("engines.hf", "engines.process", "engines.core"),
    "engines.examples": ("engines.examples", "engines.core", "engines.process"),
    "engines.backends": (
        "engines.backends",
        "engines.core",
        "engines.model",
        "engines.apex.attention",
        "engines.apex.memory",
    ),
}

# Decisions must not depend on chance, on the wall clock or on other threads; so that a journal replays to equal plans.
UNDECIDABLE = frozenset(
    {"random", "secrets", "time", "datetime", "threading", "multiprocessing", "concurrent", "asyncio"}
)
CLOCK = "engines.core.clock"


def crossings(module: Module, known: frozenset[str]) -> list[str]:
    """Imports of ours that the table does not allow, wherever in the module they stand."""
    allowed = _may_import(module.name)
    return [
        _line(module, found)
        for found in imports(module, known)
        if found.target.partition(".")[0] in PACKAGES and not any(within(found.target, prefix) for prefix in allowed)
    ]


def impurities(module: Module, known: frozenset[str]) -> list[str]:
    """What a module of the control plane imports beyond itself and the harmless part of the standard library."""
    return [_line(module, found) for found in _outside(module, known) if not _harmless(module.name, found.target)]


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _may_import(name: str) -> tuple[str, ...]:
    prefix = max((prefix for prefix in MAY_IMPORT if within(name, prefix)), key=len)
    if prefix == "engines" and name != "engines":
        engine = ".".join(name.split(".")[:2])
        return (engine, "engines.core")  # a policy: one readable page over the core's vocabulary
    return MAY_IMPORT[prefix]


def _outside(module: Module, known: frozenset[str]) -> Iterator[Import]:
    return (found for found in imports(module, known) if found.target.partition(".")[0] not in PACKAGES)


def _harmless(name: str, target: str) -> bool:
    top = target.partition(".")[0]
    if top == "time":
        return name == CLOCK
    return top in sys.stdlib_module_names and top not in UNDECIDABLE


def _line(module: Module, found: Import) -> str:
    return f"{module.name}:{found.line} imports {found.target}"
