"""What the pages of simulated answers share: the frame of a self-contained page, and where it says how it was made.

Such a page is made from plain data and not from a run folder; it needs no network and has no script at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from reports.rendering import asset, render
from reports.values import moment


def answer_page(template: str, title: str, kind: str, told: Mapping[str, str], **values: object) -> str:
    """`told`: command, date and commit, as far as the caller knows them."""
    style = asset("report.css") + Markup("\n") + asset("answers.css")
    return str(render(template, title=title, kind=kind, style=style, told=_told(told), **values)).lstrip()


def _told(told: Mapping[str, str]) -> dict[str, object]:
    facts = [("Made", moment(told.get("date", ""))), ("Git commit", told.get("commit", ""))]
    return {"command": told.get("command", ""), "facts": [(title, text) for title, text in facts if text]}
