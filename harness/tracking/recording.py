"""From a run folder to what the history keeps of it: cells under what they may be compared by, and the environment.

Everything comes from the folder itself, so that a run of another machine is taken as what it is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from harness.environment import commit_date
from harness.errors import ConfigError
from harness.opening import CALIBRATION, doubts
from harness.tracking.fitness import THROTTLED
from harness.tracking.identity import clips, setup, testbed
from harness.verdicts import why_unusable, without_wrong_tokens
from results.errors import ResultsError
from results.history_rows import CellRow, Role, RunRow, Version
from results.query import Run, load_run
from results.readers import read_samples
from results.schema import CellSummary, Manifest, Status

SAMPLED = ("system_cpu_percent", "cpu_frequency_mhz", "gpu_sm_clock_mhz", "gpu_memory_clock_mhz", "gpu_temperature_c")
THROTTLE = "gpu_throttle_reasons_bits"


def recorded(path: Path, *, night: str | None = None, role: Role = Role.NIGHT, unfit: str = "") -> RunRow:
    """`unfit`: why the figures are no evidence of the code, as the caller knows; what the run itself says is added."""
    run = load_run(path)
    if not run.cells:
        raise ResultsError(f"{path}: no cell of this run is complete: nothing to add")
    environment = _environment(run)
    return RunRow(
        key=key_of(run.manifest),
        content=_digest([cell.to_json() for cell in run.cells]),
        night=_night(path, night, run.manifest),
        role=role,
        name=run.manifest.name,
        created_utc=run.manifest.created_utc,
        backend=run.manifest.backend,
        version=_version(run.manifest),
        unfit="; ".join(_unfit(unfit, run, environment)),
        environment=environment,
        config=run.manifest.config,
        source=str(path),
        cells=tuple(_cells(run)),
    )


def key_of(manifest: Manifest) -> str:
    """What tells one run from all others: when it was begun, by which command, of which cells."""
    return _digest(manifest.to_json())


def parse_night(text: str, option: str = "--night") -> str:
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise ConfigError(f"{option} {text}: expected a date such as 2026-01-31") from None


def unfinished(path: Path) -> int:
    """Cells that were planned, or begun, and gave no record."""
    run = load_run(path)
    return len(run.missing) + len(run.incomplete) + len(run.unreadable)


def _night(path: Path, night: str | None, manifest: Manifest) -> str:
    if night is not None:
        return parse_night(night)
    try:
        return date.fromisoformat(manifest.created_utc[:10]).isoformat()
    except ValueError:
        raise ConfigError(f"{path}: its manifest does not say when it was run: give --night") from None


def _version(manifest: Manifest) -> Version:
    commit = manifest.git_commit or ""
    package = manifest.versions.get("hybrid-harness", manifest.versions.get("harness", ""))
    return Version(str(package), commit, commit_date(commit), bool(manifest.git_dirty))


# --- cells ------------------------------------------------------------------------------------------------------------


def _cells(run: Run) -> Iterable[CellRow]:
    judged = without_wrong_tokens([cell.to_json() for cell in run.cells])
    limits = clips(run.cells)
    for cell, as_judged in zip(run.cells, judged, strict=True):
        yield CellRow(
            cell_id=cell.cell_id,
            engine=cell.engine,
            workload=cell.workload,
            label=cell.label,
            testbed=testbed(run.manifest, cell.label),
            setup=setup(run.manifest, cell, limits.get(cell.workload)),
            repeat=cell.repeat,
            status=Status(cell.status),
            reason=why_unusable(as_judged),
            metrics=_finite(cell),
        )


def _finite(cell: CellSummary) -> dict[str, float]:
    return {name: value for name, value in cell.metrics.items() if math.isfinite(value)}


# --- the environment --------------------------------------------------------------------------------------------------


def _environment(run: Run) -> dict[str, object]:
    machine = run.manifest.machine
    told = {
        key: machine[key] for key in ("load_average", "load_warning", "kernel", "gpus", CALIBRATION) if key in machine
    }
    return {**told, "versions": dict(run.manifest.versions), "sampled": _sampled(run)}


def _sampled(run: Run) -> dict[str, object]:
    """From least to most over all cells; of the reasons for throttling, all that ever held."""
    values: dict[str, list[float]] = {}
    for cell in run.cells:
        for column, found in _samples(run.cell_dir(cell)).items():
            values.setdefault(column, []).extend(found)
    bits = reduce(or_, map(int, values.pop(THROTTLE, [])), 0)
    spans: dict[str, object] = {
        column: {"low": min(found), "mean": sum(found) / len(found), "high": max(found)}
        for column, found in values.items()
    }
    return spans | ({THROTTLE: bits} if bits else {})


def _samples(cell_dir: Path) -> dict[str, list[float]]:
    """Nothing of a cell in virtual time, or of a run that was copied without its tables."""
    try:
        frame = read_samples(cell_dir)
    except ResultsError:
        return {}
    found = {column: frame[column].dropna().tolist() for column in (*SAMPLED, THROTTLE) if column in frame}
    return {column: values for column, values in found.items() if values}


def _unfit(told: str, run: Run, environment: Mapping[str, Any]) -> Sequence[str]:
    bits = environment["sampled"].get(THROTTLE, 0)
    reasons = [word for bit, word in THROTTLED.items() if bits & bit]
    throttled = [f"the GPU was slowed down ({', '.join(reasons)})"] if reasons else []
    return [*([told] if told else []), *doubts(run.manifest, run.manifest.backend), *throttled]


def _digest(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
