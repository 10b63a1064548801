"""Templates to HTML. Everything a template is given is escaped; only SVG drawn here and our own CSS and script are not.

Undefined names in a template are errors: a report with a silent hole is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.legible import printable

TEMPLATES = Path(__file__).parent / "templates"


def _written(value: object) -> object:
    """Of every value that a template prints. What is HTML already has been through this."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_environment = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_written,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page: its anchor, its title as the contents list gives it, its HTML."""

    anchor: str
    title: str
    body: Markup


def render(template: str, **values: object) -> Markup:
    return Markup(_environment.get_template(template).render(**values))


def asset(name: str) -> Markup:
    """Our own style sheet or script, to be put into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8").strip())
