"""No module needs itself to be imported: Tarjan's strongly connected components over the imports that run at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from tests.architecture.sources import Module, When, imports, parse, product, product_names

Graph = Mapping[str, frozenset[str]]


def import_graph(modules: Iterable[Module], known: frozenset[str]) -> Graph:
    """Imports in functions and those for types alone run later or never, so they cannot close a circle."""
    return {
        module.name: frozenset(
            found.target for found in imports(module, known) if found.when is When.TOP and found.target in known
        )
        for module in modules
    }


def cycles(graph: Graph) -> list[list[str]]:
    """Every component of more than one module, and every module that imports itself."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        path.append(name)
        for target in sorted(graph.get(name, ())):
            if target not in index:
                visit(target)
            if target in path:
                lowest[name] = min(lowest[name], lowest[target])
        if lowest[name] == index[name]:
            component = path[path.index(name) :]
            del path[path.index(name) :]
            if len(component) > 1 or name in graph.get(name, ()):
                found.append(sorted(component))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def test_no_import_cycles() -> None:
    graph = import_graph(product(), product_names())
    assert sum(map(len, graph.values())) > 200, "an empty graph has no cycles either"
    assert cycles(graph) == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"a": "import b", "b": "import a"}, [["a", "b"]]),
        ({"a": "import b", "b": "import c", "c": "try:\n    import a\nfinally:\n    pass"}, [["a", "b", "c"]]),
        ({"a": "import b, c", "b": "import c", "c": "import d", "d": "import b"}, [["b", "c", "d"]]),
        ({"a": "import a"}, [["a"]]),
        ({"p.a": "import p.b", "p.b": "class B:\n    from p import a"}, [["p.a", "p.b"]]),
        ({"a": "import b", "b": "if TYPE_CHECKING:\n    pass\nelse:\n    import a"}, [["a", "b"]]),
        ({"a": "import b", "b": "import c", "c": ""}, []),
        ({"a": "import b", "b": "def later():\n    import a"}, []),
        ({"a": "import b", "b": "import typing\nif typing.TYPE_CHECKING:\n    import a"}, []),
    ],
)
def test_a_cycle_is_noticed(sources: dict[str, str], expected: list[list[str]]) -> None:
    modules = [parse(name, source) for name, source in sources.items()]
    assert cycles(import_graph(modules, frozenset(sources))) == expected
