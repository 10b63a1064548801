"""Where the figures come from: machine, versions, commit, seeds, configuration, and the command to run again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from reports.rendering import Section, render
from reports.sections.instrument import CALIBRATION
from reports.values import ABSENT, count, flatten, moment, quantity
from results.query import Run
from results.schema import SCHEMA_VERSION, Manifest


def build(run: Run) -> Section:
    manifest = run.manifest
    body = render(
        "provenance.html",
        command=manifest.command,
        facts=_facts(manifest),
        machine=_listed({key: value for key, value in manifest.machine.items() if key != CALIBRATION}),
        versions=_listed(manifest.versions),
        config=_as_yaml(manifest.config),
        seeds=_as_yaml(manifest.seeds) if isinstance(manifest.seeds, Mapping) else "",
    )
    return Section("provenance", "Provenance", body)


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    facts = [
        ("Backend", manifest.backend),
        ("Cost model", manifest.cost_model_error),
        ("Started", moment(manifest.created_utc)),
        ("Commit", _commit(manifest)),
        ("Seeds", _seeds(manifest.seeds)),
        ("Cells planned", str(len(manifest.cells_planned)) if manifest.cells_planned else ""),
        ("Format of the run folder", f"version {SCHEMA_VERSION}"),
    ]
    return [(title, text or ABSENT) for title, text in facts]


def _seeds(seeds: object) -> str:
    """Of a seed per cell only how many there are: engines share them, and the list is long."""
    if isinstance(seeds, Mapping) and seeds:
        return f"{len({str(seed) for seed in seeds.values()})} for {count(len(seeds), 'cell')}, listed below"
    return ABSENT if seeds is None else json.dumps(seeds, ensure_ascii=False)


def _commit(manifest: Manifest) -> str:
    if not manifest.git_commit:
        return ABSENT
    return manifest.git_commit + (" with uncommitted changes" if manifest.git_dirty else "")


def _listed(data: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(key, quantity(key, value)) for key, value in flatten(data)]


def _as_yaml(config: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100) if config else ""
