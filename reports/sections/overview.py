"""The head of the page: what was run, what its label means, and how far the run got."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reports.labels import MEANING, MIXED
from reports.rendering import render
from reports.values import count, listing, moment, quantity
from results.query import Run
from results.schema import SUMMARY_FILE, Status


def head(run: Run) -> Markup:
    """What the answer below it is about, and what kind of figures it rests on."""
    return render(
        "overview.html",
        name=run.manifest.name,
        labels=[(str(label), MEANING[label]) for label in run.labels],
        mixed=MIXED if len(run.labels) > 1 else None,
        cost_model_error=run.manifest.cost_model_error,
    )


def facts(run: Run) -> Markup:
    """After the answer: what ran, where and when."""
    return render("facts.html", facts=_facts(run))


def _facts(run: Run) -> list[tuple[str, str]]:
    """Only what is known: an old or foreign manifest may lack any of it."""
    config = run.manifest.config
    facts = [
        ("Model", quantity("model", config.get("model"))),
        ("Hardware", quantity("hardware", config.get("hardware"))),
        ("Engines", _names(run.engines, 8)),
        ("Workloads", _names(run.workloads, 4)),
        ("Cells", _progress(run)),
        ("Started", moment(run.manifest.created_utc)),
    ]
    return [(title, text) for title, text in facts if text not in ("", "–")]


def _names(names: Sequence[str], most: int) -> str:
    """All of a few, the ends of many: the tables name the rest."""
    return listing(names) if len(names) <= most else f"{len(names)}, from {names[0]} to {names[-1]}"


def _progress(run: Run) -> str:
    ok = len(run.with_status(Status.OK))
    total = len(run.cells) + len(run.incomplete) + len(run.missing) + len(run.unreadable.keys() - {SUMMARY_FILE})
    repeats = max((len(group.cells) for group in run.groups()), default=0)
    return f"{ok:,} of {count(total, 'cell')} ok, {count(repeats, 'repeat')} each" if repeats else f"{ok} of {total} ok"
