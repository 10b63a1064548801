"""A report as a reader's program sees it: parsed, so that tests ask about elements and not about strings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from reports.page import write_report
from results.query import Run, load_run
from results.schema import CellSummary, Status
from results.store import RunFolder
from tests.results.run_folders import WHEN, Shape, build, manifest, summary

VOID = frozenset({"meta", "input", "br", "hr", "img", "link"})


@dataclass(slots=True)
class Element:
    """One element with its attributes and children; text is a child too."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def everything(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.everything()

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [
            element
            for element in self.everything()
            if element.tag == tag
            and all(value in element.attributes.get(name.rstrip("_"), "").split() for name, value in attributes.items())
        ]

    def one(self, tag: str, **attributes: str) -> Element:
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} of <{tag} {attributes}>"
        return found[0]

    @property
    def text(self) -> str:
        return " ".join("".join(self._text()).split())

    def _text(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield " "
                yield from child._text()


class _Parser(HTMLParser):
    """Insists that every element is closed where it should be, which browsers forgive and this project does not."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(path: Path) -> Element:
    return fragment(path.read_text(encoding="utf-8"))


def fragment(html: str) -> Element:
    """A page or a part of one."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == [parser.root], "elements left open"
    return parser.root


def report(out_dir: Path, shape: Shape | None = None) -> Element:
    """Builds a run, writes its report, and parses it."""
    return parse(write_report(build(out_dir, shape)))


def cell(engine: str = "apex", workload: str = "chat", repeat: int = 0, **fields: Any) -> CellSummary:
    """A successful cell of the synthetic runs, with other values in some fields; `metrics` are added to its own."""
    shape = Shape(engines=(engine,), workloads=(workload,))
    made = summary(shape, f"{engine}-{workload}-r{repeat}", engine, workload, repeat, Status.OK)
    metrics = {**made.metrics, **fields.pop("metrics", {})}
    return dataclasses.replace(made, metrics=metrics, **{"notes": (), "unavailable": {}, **fields})


def run_of(out_dir: Path, *cells: CellSummary, **of_manifest: Any) -> Run:
    """A run with these cells and without their tables: enough for what is made from summaries alone."""
    folder = RunFolder.create(out_dir, "few", WHEN)
    planned = tuple(made.cell_id for made in cells)
    folder.write_manifest(dataclasses.replace(manifest(Shape()), cells_planned=planned, **of_manifest))
    for made in cells:
        folder.write_cell_summary(made)
    return load_run(folder.path)


def rows(table: Element) -> list[list[str]]:
    return [
        [entry.text for entry in row.children if isinstance(entry, Element)] for row in table.one("tbody").all("tr")
    ]


def section(page: Element, anchor: str) -> Element:
    found = [element for element in page.all("section") if element.attributes["id"] == anchor]
    assert len(found) == 1
    return found[0]
