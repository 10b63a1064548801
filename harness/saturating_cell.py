"""A cell that searches for saturation: every probe a cell of its own inside it, one after another in this process.

The figures are those of the fastest probe that met the SLO, with the rate beside them; probes.json has all of them.
Every probe builds its engine anew. Engines are compared on the same draws: those depend on the seed and the attempt.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.errors import ConfigError
from harness.plan import CellSpec, cell_seed
from harness.request_columns import Requests, meets_slo, per_request
from harness.saturate import Saturation, Served, find_saturation
from results.schema import CellSummary, Status
from results.store import iter_requests, write_json, write_text
from workloads import asks_to_saturate, at_rate, search_of

PROBES_FOLDER = "probes"
PROBES_FILE = "probes.json"
SPEC_FILE = "spec.json"
MOST_TRIES = 2

RunCell = Callable[[Path], CellSummary]  # serves the spec.json of a folder and leaves its records there


def is_saturating(spec: CellSpec) -> bool:
    return asks_to_saturate(spec.workload.options)


def run_saturating(spec: CellSpec, cell_dir: Path, run_cell: RunCell) -> CellSummary:
    """Search, keep the records of the best probe, and say what was found."""
    runs = _Probes(spec, cell_dir / PROBES_FOLDER, run_cell)
    try:
        found = find_saturation(runs.serve, search_of(spec.workload.options))
    except _UnfitProbeError as unfit:
        _keep(unfit.folder, cell_dir)
        return unfit.summary
    kept = found.best if found.best is not None else _slowest(found)
    _keep(runs.folders[kept], cell_dir)
    write_json(cell_dir / PROBES_FILE, {"probes": [asdict(probe) for probe in found.probes]})
    return _summary(spec, runs.summaries[kept], found)


class _UnfitProbeError(Exception):
    """A probe that is no evidence either way, as when the emulation was too slow: the search cannot go on."""

    def __init__(self, folder: Path, summary: CellSummary) -> None:
        super().__init__(summary.error)
        self.folder = folder
        self.summary = summary


@dataclass(slots=True)
class _Probes:
    """The probes of one search, and where each has its records."""

    spec: CellSpec
    folder: Path
    run_cell: RunCell
    folders: list[Path] = field(default_factory=list)
    summaries: list[CellSummary] = field(default_factory=list)
    cores: set[int] = field(default_factory=lambda: os.sched_getaffinity(0))

    def serve(self, rate_rps: float, attempt: int) -> Served:
        """A machine that was busy for a moment costs a second try, not the search."""
        spec = _probe_spec(self.spec, rate_rps, attempt)
        for one_try in range(MOST_TRIES):
            folder = self.folder / f"{len(self.summaries):02d}-{one_try}"
            summary = self._run(spec, folder)
            if summary.status is Status.OK:
                self.folders.append(folder)
                self.summaries.append(summary)
                return served_of(summary, folder, spec, rate_rps)
        error = f"the probe at {rate_rps:.4g} requests/s, tried {MOST_TRIES} times: {summary.error}"
        raise _UnfitProbeError(folder, replace(summary, error=error))

    def _run(self, spec: CellSpec, folder: Path) -> CellSummary:
        folder.mkdir(parents=True)
        write_text(folder / SPEC_FILE, spec.to_json() + "\n")
        os.sched_setaffinity(0, self.cores)  # a probe before may have claimed a core; this one chooses afresh
        summary = self.run_cell(folder)
        gc.collect()  # the engine of a probe is gone before the next one is built
        return summary


def _keep(folder: Path, cell_dir: Path) -> None:
    """The records of one probe become the cell's; the others go."""
    for path in folder.iterdir():
        if path.name != SPEC_FILE:
            os.replace(path, cell_dir / path.name)
    shutil.rmtree(folder.parent)


def _probe_spec(spec: CellSpec, rate_rps: float, attempt: int) -> CellSpec:
    seed = spec.measure.seed if attempt == 0 else cell_seed(spec.measure.seed, "saturate", attempt)
    workload = replace(spec.workload, options=at_rate(spec.workload.options, rate_rps))
    return replace(spec, workload=workload, measure=replace(spec.measure, seed=seed))


def served_of(summary: CellSummary, probe_dir: Path, spec: CellSpec, rate_rps: float) -> Served:
    slo = {} if spec.slo is None else spec.slo.limits
    asked, within, within_all = 0, Counter(dict.fromkeys(slo, 0)), 0
    for records in iter_requests(probe_dir):
        batch = Requests.of(records)
        values, counted = per_request(batch), ~batch.warmup
        asked += int(counted.sum())
        within_all += int((meets_slo(batch, values, slo) & counted).sum())
        for key, limit in slo.items():
            within[key] += int((meets_slo(batch, values, {key: limit}) & counted).sum())
    if asked == 0:
        raise ConfigError("measure.warmup_requests: leaves no request to be measured; lower it or raise requests")
    drawn = summary.resolved.get("workload")
    offered = drawn.get("requests_per_s") if isinstance(drawn, Mapping) else None
    return Served(offered or rate_rps, {key: count / asked for key, count in within.items()}, within_all / asked)


def _slowest(found: Saturation) -> int:
    return min(range(len(found.probes)), key=lambda number: found.probes[number].rate_rps)


def _summary(spec: CellSpec, best: CellSummary, found: Saturation) -> CellSummary:
    search = search_of(spec.workload.options)
    if found.rate_rps is None:
        slowest = found.probes[_slowest(found)]
        return replace(
            best,
            status=Status.INVALID,
            metrics={},
            error=f"no rate met the slo: at {slowest.served.offered_rps:.4g} requests/s, the lowest of "
            f"{len(found.probes)} probes, {slowest.served.within_all:.0%} of the requests did "
            f"({search.attainment:.0%} asked for); relax slo: or lower arrivals.start_rate",
        )
    figures = {"saturation_rps": found.rate_rps, "saturation_probes": float(len(found.probes))}
    outcome = {"bound_by": found.bound_by or "nothing: met at every rate", "attainment_asked": search.attainment}
    return replace(
        best,
        metrics=dict(best.metrics) | figures,
        resolved=dict(best.resolved) | {"saturation": outcome},
        notes=(*best.notes, _sentence(found, search.attainment)),
    )


def _sentence(found: Saturation, attainment: float) -> str:
    head = f"saturation: {found.rate_rps:.4g} requests/s met the slo for {attainment:.0%} of the requests"
    if found.missed is None:
        return f"{head}, and so did every other rate of {len(found.probes)} probes: it may be higher"
    missed = found.probes[found.missed].served
    return (
        f"{head}, the highest of {len(found.probes)} probes; at {missed.offered_rps:.4g}, {missed.within_all:.0%} did, "
        f"and {found.bound_by} was kept by {missed.within[str(found.bound_by)]:.0%}. The other figures are of that rate"
    )
