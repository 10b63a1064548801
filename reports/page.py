"""The report of a run: one HTML file that opens anywhere, needs no network and no script, and prints.

Only results are read, so a report can be rebuilt on another machine; the same folder always gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from reports.evidence import gather
from reports.judgement import judged
from reports.legible import with_short_names
from reports.rendering import Section, asset, render
from reports.sections import (
    accuracy,
    beliefs,
    busy,
    definitions,
    distributions,
    fairness,
    figures,
    modes,
    occupancy,
    operators,
    overlap,
    overview,
    problems,
    provenance,
    requests,
    verdict,
)
from results.query import Run, load_run
from results.store import write_text

REPORT_FILE = "report.html"


def write_report(run_dir: Path) -> Path:
    """Builds `report.html` in the run folder, whatever state the run is in, and gives its path."""
    path = run_dir / REPORT_FILE
    write_text(path, page_of(run_dir))
    return path


def page_of(run_dir: Path) -> str:
    """The same page, and nothing is written."""
    return _page(with_short_names(judged(load_run(run_dir))))


def _page(run: Run) -> str:
    script = asset("report.js")
    return render(
        "page.html",
        name=run.manifest.name,
        style=asset("report.css"),
        script=script,
        script_hash=_content_hash(script),
        head=overview.head(run),
        facts=overview.facts(run),
        sections=_sections(run),
    )


def _sections(run: Run) -> list[Section]:
    evidence = gather(run)
    troubles, chosen, worked = problems.build(run, evidence), modes.build(run), operators.build(run)
    believed = beliefs.build(run)
    return [
        verdict.build(run, all_clear=troubles is None),
        *([troubles] if troubles else []),
        figures.build(run),
        fairness.build(run),
        distributions.build(run, evidence),
        occupancy.build(run, evidence),
        busy.build(run, evidence),
        *([worked] if worked else []),
        *([chosen] if chosen else []),
        overlap.build(run, evidence),
        accuracy.build(run, evidence),
        *([believed] if believed else []),
        requests.build(run, evidence),
        definitions.build(),
        provenance.build(run),
    ]


def _content_hash(script: str) -> str:
    """For the page's content policy: a browser runs our script and no other, whatever slipped through the escaping."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
