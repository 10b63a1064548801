"""The product's modules as syntax trees, and what each of them imports. Nothing of the product is imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("engines", "harness", "reports", "results", "workloads")


class When(Enum):
    """When an import statement runs."""

    TOP = "on import"
    TYPING = "never: under TYPE_CHECKING"
    LATER = "in a function"


@dataclass(frozen=True, slots=True)
class Import:
    target: str
    line: int
    when: When


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    tree: ast.Module
    is_package: bool = False


@lru_cache(1)
def product() -> tuple[Module, ...]:
    """Every Python module of ours, in alphabetical order."""
    return tuple(_read(path) for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py")))


@lru_cache(1)
def product_names() -> frozenset[str]:
    """Names that an import can mean as a module: ours, and native ones, of which only the stub is in the tree."""
    stubs = (path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.pyi"))
    return frozenset({module.name for module in product()} | {_name(path) for path in stubs})


def parse(name: str, source: str) -> Module:
    """A module that exists only in a test."""
    return Module(name, ast.parse(source))


def imports(module: Module, known: frozenset[str]) -> list[Import]:
    """`from package import name` means the submodule where `known` has one, else the package."""
    return list(_imports(module, module.tree, When.TOP, known))


def _imports(module: Module, node: ast.AST, when: When, known: frozenset[str]) -> Iterator[Import]:
    match node:
        case ast.Import():
            yield from (Import(alias.name, node.lineno, when) for alias in node.names)
        case ast.ImportFrom():
            base = _base(module, node)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield Import(submodule if submodule in known else base, node.lineno, when)
        case ast.Call(args=[ast.Constant(value=str() as target), *_]) if _called(node) in (
            "import_module",
            "__import__",
        ):
            yield Import(target, node.lineno, when)
    for child, moment in _children(node, when):
        yield from _imports(module, child, moment, known)


def _children(node: ast.AST, when: When) -> Iterator[tuple[ast.AST, When]]:
    inside = When.LATER if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) else when
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        yield from ((child, When.TYPING) for child in node.body)
        yield from ((child, inside) for child in node.orelse)
        return
    yield from ((child, inside) for child in ast.iter_child_nodes(node))


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _base(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name of what a `from` names; each dot beyond the first goes one package up."""
    if not node.level:
        return node.module or ""
    above = module.name.split(".")
    above = above[: len(above) - node.level + module.is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def _read(path: Path) -> Module:
    return Module(_name(path), ast.parse(path.read_bytes(), str(path)), path.name == "__init__.py")


def _name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
