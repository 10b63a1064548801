"""A cell's figures, worked out again from its records and held against its summary.

Rows are taken by as many at a time as when they were recorded, because a sum depends on its order. What no record can
give back (a clock read once, what an engine said of itself) is named, and is not counted as checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from harness.audit import WITHHELD, audit
from harness.cell import FLUSH_ROWS, hindsight
from harness.collectors.gpu import energy_per_output_token
from harness.collectors.watch import ENERGY
from harness.differences import NOTHING, Ledger
from harness.errors import ConfigError
from harness.memory_use import peaks
from harness.metrics import Aggregator, Measured
from harness.plan import LABELS, CellSpec
from harness.saturate import Served, find_saturation
from harness.saturating_cell import PROBES_FILE, SPEC_FILE, is_saturating, served_of
from results.parity_check import ParityCheck
from results.schema import SUMMARY_FILE, CellSummary, Status
from results.store import RunFolder, iter_requests, iter_steps, read_json, read_samples
from workloads import search_of

CLOCK_READINGS = frozenset({"cell_wall_s", "sampler_cost_share"})
OF_PROBES = frozenset({"saturation_rps", "saturation_probes"})
WITHOUT_FIGURES = frozenset({Status.FAILED, Status.REFUSED})


def check_cell(folder: RunFolder, cell_id: str, ledger: Ledger) -> CellSpec:
    """Every metric of the cell, the reasons of those it lacks, and what it says that it is."""
    cell_dir, file = folder.cell_path(cell_id), f"cells/{cell_id}/{SUMMARY_FILE}"
    spec = CellSpec.from_json((cell_dir / SPEC_FILE).read_bytes())
    summary = folder.read_cell_summary(cell_id)
    _check_identity(spec, cell_id, summary, file, ledger)
    if summary.status in WITHOUT_FIGURES:
        ledger.compare(file, "metrics of a cell without results", {}, dict(summary.metrics))
        return spec
    measured = _recounted(spec, summary, cell_dir, ledger)
    _check_metrics(spec, summary, measured, file, ledger)
    _check_audit(spec, summary, measured, file, ledger)
    return spec


def _check_identity(spec: CellSpec, cell_id: str, summary: CellSummary, file: str, ledger: Ledger) -> None:
    asked = (cell_id, spec.engine.name, spec.workload.name, spec.backend, LABELS[spec.backend], spec.repeat)
    told = (summary.cell_id, summary.engine, summary.workload, summary.backend, str(summary.label), summary.repeat)
    for what, expected, found in zip(
        ("cell_id", "engine", "workload", "backend", "label", "repeat"), asked, told, strict=True
    ):
        ledger.compare(file, what, expected, found)
    ledger.compare(f"cells/{cell_id}/{SPEC_FILE}", "cell_id", cell_id, spec.cell_id)
    ledger.compare(f"cells/{cell_id}/{SPEC_FILE}", "label", LABELS[spec.backend], spec.label)


# --- from the records -------------------------------------------------------------------------------------------------


def _recounted(spec: CellSpec, summary: CellSummary, cell_dir: Path, ledger: Ledger) -> Measured:
    aggregator = Aggregator(None if spec.slo is None else spec.slo.limits)
    output_tokens = 0.0
    for rows in _by_flush(iter_requests(cell_dir)):
        output_tokens += float(sum(rows.column("output_tokens").to_pylist()))
        aggregator.add_requests(rows)
    for rows in _by_flush(iter_steps(cell_dir)):
        aggregator.add_steps(rows)
    measured, held = aggregator.result(), peaks(summary.resolved, cell_dir)
    metrics, unavailable = measured.metrics | held.metrics, measured.unavailable | held.unavailable
    if ENERGY in summary.metrics:
        samples = read_samples(cell_dir).to_dict("records")
        rows_told = ({str(key): value for key, value in row.items() if value == value} for row in samples)
        energy = energy_per_output_token(rows_told, output_tokens).j_per_output_token
        metrics |= {} if energy is None else {ENERGY: energy}
    if is_saturating(spec) and not OF_PROBES.isdisjoint(summary.metrics):
        metrics |= _searched(spec, summary, cell_dir)
    try:
        seen = hindsight(spec, cell_dir)
        metrics, unavailable = metrics | seen.metrics, unavailable | seen.unavailable
    except ConfigError as error:  # a machine or a model of somebody's own, by a path that is not here
        for key in (key for key in summary.metrics if key.startswith(("regret_share", "mode_share_", "best_share_"))):
            metrics[key] = summary.metrics[key]
            ledger.take("regret and shares of modes", f"cannot be priced here: {error}")
    return Measured(metrics, measured.notes, unavailable)


def _by_flush(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows again in the blocks in which they were added up."""
    kept: list[pa.RecordBatch] = []
    for batch in batches:
        kept.append(batch)
        while sum(part.num_rows for part in kept) >= FLUSH_ROWS:
            whole = pa.Table.from_batches(kept).combine_chunks()
            yield whole.slice(0, FLUSH_ROWS).combine_chunks().to_batches()[0]
            kept = whole.slice(FLUSH_ROWS).to_batches()
    if rest := [part for part in kept if part.num_rows]:
        yield pa.Table.from_batches(rest).combine_chunks().to_batches()[0]


def _searched(spec: CellSpec, summary: CellSummary, cell_dir: Path) -> dict[str, float]:
    """The search again over what its probes found; the probe that was kept is found again from its requests."""
    read = read_json(cell_dir / PROBES_FILE)
    probes = read["probes"] if isinstance(read, dict) else []
    told = iter(probes)

    def serve(rate_rps: float, attempt: int) -> Served:
        probe = next(told, None)
        if probe is None or (probe["rate_rps"], probe["attempt"]) != (rate_rps, attempt):
            raise ConfigError(f"{PROBES_FILE}: its probes are not those that the search would have made")
        return Served(**probe["served"])

    found = find_saturation(serve, search_of(spec.workload.options))
    if found.rate_rps is None or found.best is None or len(found.probes) != len(probes):
        return {}
    best = found.probes[found.best]
    if served_of(summary, cell_dir, spec, best.rate_rps) != best.served:
        raise ConfigError(f"{PROBES_FILE}: the probe that was kept is not what its requests say")
    return {"saturation_rps": found.rate_rps, "saturation_probes": float(len(found.probes))}


# --- against the summary ----------------------------------------------------------------------------------------------


def _check_metrics(spec: CellSpec, summary: CellSummary, measured: Measured, file: str, ledger: Ledger) -> None:
    is_invalid = summary.status is Status.INVALID
    if is_invalid and is_saturating(spec) and not summary.metrics:
        return  # no rate met the SLO: none is shown
    for key in dict.fromkeys((*measured.metrics, *summary.metrics)):
        if key in CLOCK_READINGS:
            ledger.take(key, "a clock was read, of which nothing else is kept")
        elif is_invalid and summary.unavailable.get(key) == WITHHELD and key not in summary.metrics:
            continue
        else:
            expected, found = (shelf.get(key, NOTHING) for shelf in (measured.metrics, summary.metrics))
            ledger.compare(file, f"metrics.{key}", expected, found)
    for key, why in measured.unavailable.items():
        if key not in measured.metrics:
            ledger.compare(file, f"unavailable.{key}", why, summary.unavailable.get(key, NOTHING))
    for note in measured.notes:
        ledger.compare(file, "notes", note, note if note in summary.notes else " | ".join(summary.notes))


def _check_audit(spec: CellSpec, summary: CellSummary, measured: Measured, file: str, ledger: Ledger) -> None:
    """Its envelope and its status. What clients saw go wrong is in no record, so that an invalid cell is believed."""
    try:
        found = audit(spec, dict(summary.resolved), measured, (), summary.parity or ParityCheck(note=""))
    except ConfigError as error:
        ledger.take("the envelope", f"cannot be worked out here: {error}")
        return
    ledger.compare(file, "unfair", list(found.unfair), list(summary.unfair))
    if summary.status is Status.OK or found.status is not Status.OK:
        ledger.compare(file, "status", str(found.status), str(summary.status))
