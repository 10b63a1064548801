"""Things that appear nowhere in the product: code that runs data, shells, pickles. And every module says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.sources import Module, parse, product

NAMES = frozenset(
    {"eval", "exec", "torch.load", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    | {f"yaml.{loader}{many}" for loader in ("load", "unsafe_load", "full_load") for many in ("", "_all")}
    | {f"pandas.{kind}_pickle" for kind in ("read", "to")}
)
MODULES = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"})
KEYWORDS = frozenset({"shell", "allow_pickle"})


def forbidden(module: Module) -> list[str]:
    """References count, not only calls: a name under which something is passed on is as bad."""
    return [f"{module.name}:{line} {what}" for line, what in _found(module.tree)]


def _found(tree: ast.Module) -> Iterator[tuple[int, str]]:
    meaning = _meanings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                yield from ((node.lineno, name) for name in names if name.partition(".")[0] in MODULES)
            case ast.Name() | ast.Attribute() if (name := _qualified(node, meaning)) in NAMES:
                yield node.lineno, name
            case ast.keyword(arg=str() as word) if word in KEYWORDS and not _is_false(node.value):
                yield node.value.lineno, word


def _meanings(tree: ast.Module) -> dict[str, str]:
    """What the names that imports bind stand for: `from yaml import load as read` makes `read` mean yaml.load."""
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bound |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return bound


def _qualified(node: ast.expr, meaning: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return meaning.get(name, name)
        case ast.Attribute(value=owner, attr=name):
            return f"{_qualified(owner, meaning)}.{name}"
    return "?"


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def unexplained(module: Module) -> bool:
    """An empty marker of a package has nothing to explain; everything else says what it is."""
    return bool(module.tree.body) and not ast.get_docstring(module.tree)


def test_nothing_forbidden_is_used() -> None:
    assert [line for module in product() for line in forbidden(module)] == []


def test_every_module_says_what_it_is() -> None:
    assert [module.name for module in product() if unexplained(module)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import yaml\nyaml.load(text)",
        "import yaml as y\ny.unsafe_load(text)",
        "from yaml import load as read\nread(text)",
        "import torch\ntorch.load(path)",
        "import pickle",
        "from pickle import loads",
        "def later():\n    import cloudpickle",
        "import os\nos.system('ls')",
        "from os import system\nrun = system",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "run('ls', shell=wanted)",
        "import numpy\nnumpy.load(path, allow_pickle=True)",
        "import pandas as pd\npd.read_pickle(path)",
        "eval('1')",
        "exec('1')",
    ],
)
def test_the_forbidden_is_noticed(source: str) -> None:
    assert len(forbidden(parse("harness.bad", source))) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "import yaml\nyaml.safe_load(text)\nyaml.compose(text, Loader=yaml.SafeLoader)",
        "model.eval()\nreader.load(path)",
        "'never yaml.load, never eval(x)'",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
    ],
)
def test_the_harmless_passes(source: str) -> None:
    assert forbidden(parse("harness.good", source)) == []


def test_a_missing_docstring_is_noticed() -> None:
    assert unexplained(parse("harness.bad", "VALUE = 1"))
    assert not unexplained(parse("harness.empty", ""))
