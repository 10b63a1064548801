"""Importing the harness does nothing but define: no torch, no output, no thread. What needs torch is listed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.architecture.sources import REPOSITORY, Module, When, imports, parse, product, product_names
from tests.architecture.test_cycles import Graph

# They are imported when a cell needs tensors, and by nobody else.
NEEDS_TORCH = {
    "harness.real",
    "harness.real_placed",
    "harness.oracle",
    "harness.bench_decode",
    "harness.bench_attention",
    "harness.bench_attention_dispatch",
    "harness.bench_attention_memory",
    "harness.bench_attention_rivals",
    "harness.bench_hybrid",
    "harness.paced_bed",
}

PROGRAM = """
import importlib, sys, threading
for name in sys.argv[1:]:
    importlib.import_module(name)
problems = []
if "torch" in sys.modules:
    problems.append("torch was imported")
if threading.active_count() != 1:
    problems.append(f"threads were started: {threading.enumerate()}")
sys.exit("; ".join(problems) or None)
"""


def import_all(names: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *names], cwd=REPOSITORY, capture_output=True, text=True
    )


def reaching_torch(graph: Graph) -> set[str]:
    """Modules that import torch the moment they are imported, themselves or through others."""
    reached = {"torch"}
    while found := {name for name, targets in graph.items() if targets & reached} - reached:
        reached |= found
    return reached - {"torch"}


def graph_with_torch(modules: Iterable[Module], known: frozenset[str]) -> Graph:
    return {
        module.name: frozenset(
            "torch" if found.target.partition(".")[0] == "torch" else found.target
            for found in imports(module, known)
            if found.when is When.TOP
        )
        for module in modules
    }


def test_the_list_of_modules_that_need_torch_is_true() -> None:
    assert {
        name for name in reaching_torch(graph_with_torch(product(), product_names())) if name.startswith("harness.")
    } == NEEDS_TORCH


def test_importing_the_harness_only_defines() -> None:
    names = [
        module.name for module in product() if module.name.startswith("harness") and module.name not in NEEDS_TORCH
    ]
    assert len(names) > 30
    ended = import_all(names)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("source", "symptom"),
    [
        ("print('hello')", "hello"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "threads"),
        ("import sys\nsys.modules['torch'] = sys", "torch was imported"),
    ],
)
def test_an_effect_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, symptom: str) -> None:
    (tmp_path / "noisy.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ended = import_all(["noisy"])
    assert symptom in ended.stdout + ended.stderr


def test_torch_is_found_through_others() -> None:
    sources = {"a": "import b", "b": "import torch.nn", "c": "def later():\n    import torch"}
    modules = [parse(name, source) for name, source in sources.items()]
    assert reaching_torch(graph_with_torch(modules, frozenset(sources))) == {"a", "b"}
