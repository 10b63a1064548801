"""A night's folder of static pages: an index, the history, the reports of the night's runs, and figures for others.

Links are relative and there is no script, so that the folder can be put anywhere as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.tracking.exports import github_benchmark, on_night, pytorch_benchmark
from harness.tracking.loading import load_tracked
from harness.tracking.nightly import Made, Night
from harness.tracking.reasons import Reason
from harness.tracking.telling import told_history
from reports.history_page import history_page
from reports.nightly_page import Link, nightly_page
from reports.values import listing
from reports.waterfalls import why_page
from results.files import write_json, write_text
from results.history import History
from results.history_rows import Role

INDEX_FILE = "index.html"
HISTORY_FILE = "history.html"
BIGGER_FILE, SMALLER_FILE = "github-benchmark-bigger.json", "github-benchmark-smaller.json"
PYTORCH_FILE = "pytorch-benchmark.json"
CHECK_FILE = "check.json"
WHY_FILE = "why.html"


def publish(night: Night, db: Path, folder: Path, told: Mapping[str, str]) -> Path:
    """Written anew, file by file; reports of experiments that were not run tonight stay as they were."""
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    with History.opened(db) as history:
        data = told_history(history, night.check)
        exported = _exports(history, night.night)
    write_text(folder / HISTORY_FILE, history_page(data, told))
    for name, document in {CHECK_FILE: night_json(night), **exported}.items():
        write_json(folder / name, document)
    links = [
        Link(HISTORY_FILE, "Every night so far", "a chart for each series, changes, noise, missing nights"),
        *(link for made in night.made if (link := _report(made, folder)) is not None),
        *(Link(name, name, _for_whom(name)) for name in (CHECK_FILE, *exported)),
    ]
    if night.reasons:
        write_text(folder / WHY_FILE, _why_page(night.reasons, told))
        links.insert(1, Link(WHY_FILE, "Why", "what regressions are made of: causes that add up to the change"))
    lines = [*map(str, night.turned), *(f"failed: {each}" for each in night.failed), *night.check.lines()]
    index = folder / INDEX_FILE
    write_text(index, nightly_page(night.night, night.exit_code, lines, links, told))
    return index


def night_json(night: Night) -> dict[str, Any]:
    return {
        "night": night.night,
        "exit_code": night.exit_code,
        "runs": [
            {"config": made.part.config, "role": str(made.role), "run_dir": str(made.outcome.run_dir)}
            for made in night.made
        ],
        "not_run": [{"config": each.config, "reason": each.reason, "label": each.label} for each in night.turned],
        "failed": night.failed,
        "check": night.check.to_json(),
        "why": [
            {"before": str(each.before), "after": str(each.after), "label": each.label} | each.why.to_json()
            for each in night.reasons
        ],
    }


def _why_page(found: Sequence[Reason], told: Mapping[str, str]) -> str:
    explained = [each.why.drawn(each.label) for each in found]
    before, after = (listing(dict.fromkeys(getattr(each, side).name for each in found)) for side in ("before", "after"))
    return why_page(explained, before, after, dict(told))


def _exports(history: History, night: str) -> dict[str, Any]:
    """None of a night that gave no figure."""
    try:
        _, figures = on_night(load_tracked(history), night)
    except ConfigError:
        return {}
    return {
        BIGGER_FILE: github_benchmark(figures, higher_is_better=True),
        SMALLER_FILE: github_benchmark(figures, higher_is_better=False),
        PYTORCH_FILE: pytorch_benchmark(figures, history.setups(), history.testbeds()),
    }


def _report(made: Made, folder: Path) -> Link | None:
    """A copy, since the run's folder is not published. None where the run has no report."""
    if made.outcome.report is None:
        return None
    name = made.part.experiment.name
    file = f"runs/{name}{'' if made.role is Role.NIGHT else f'-{made.role}'}.html"
    shutil.copyfile(made.outcome.report, folder / file)
    what = "the night's run" if made.role is Role.NIGHT else str(made.role)
    return Link(file, f"Report of {name}", f"{what}, {made.part.label}")


def _for_whom(name: str) -> str:
    return {
        CHECK_FILE: "what was found tonight, as JSON",
        BIGGER_FILE: "github-action-benchmark, customBiggerIsBetter",
        SMALLER_FILE: "github-action-benchmark, customSmallerIsBetter",
        PYTORCH_FILE: "PyTorch's benchmark format",
    }[name]
