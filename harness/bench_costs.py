"""`harness bench costs`: how near the cost model comes to measured linear ops that it was not fitted to.

Constants are fitted to every second token count of a machine's table and asked about the others, through the roofline
that simulations use: per layer (what a step is made of) and per op. Then the same points by the catalogue's entry as it
is shipped, and by constants fitted to the other machines alone. Norms, activations and rotary positions are left out
of these, and shown for themselves: as a share of the layer's products, and how near the entry's constants come.

Last, gpu_only beside the log of a real run of vLLM: costed with that card's tables and nothing else, with and without
what that run had, KV found again by preempted requests; and with the catalogue's entry, which knows neither the sampler
nor what decode rows cost beside a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from engines.core.cost import CostTable
from engines.core.placement import Part
from engines.core.profile_table import ProfileTable
from engines.core.roofline import Roofline
from engines.hardware import ByShape, Hardware, load_hardware
from engines.model.config import load_config
from harness.cost_accuracy import FORMULA, HALF
from harness.cost_accuracy import OTHERS as FITTED_TO_OTHERS
from harness.costs import DTYPE_BYTES, machine_rates, model_costs
from harness.fitting import Fit, Peaks, Samples, fit_gemm
from harness.fitting_ratios import Tables, fit_tables
from harness.log_replay import (
    PREEMPTIONS_THERE,
    CoreMaker,
    Figures,
    Log,
    figures,
    forgetting_core,
    gpu_only_core,
    latency_correlation,
    load_log,
    replay,
)
from harness.op_tables import OPS, LinearTable, Point, data_folder, halves, layer_points, linear_tables
from harness.vllm_op_costs import DTYPE as LOG_DTYPE
from harness.vllm_op_costs import MACHINE as LOG_MACHINE
from harness.vllm_op_costs import MODEL as LOG_MODEL
from harness.vllm_op_costs import measured_costs

WITH_RATIOS = "fit and 16 ratios a product"
ALONE = "fit"
SHIPPED = "catalogue entry"
OTHERS = "fit to the others"
TABLES = "op tables"


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative to what was measured."""

    mean: float
    p95: float
    worst: float
    points: int


@dataclass(frozen=True, slots=True)
class Row:
    machine: str
    constants: str
    bandwidth_efficiency: float
    compute_efficiency: float
    exponent: float
    fixed_s: float
    tile_rows: int
    layer: Errors
    op: Errors
    ops: dict[str, Errors]


def rows(tables: Sequence[LinearTable]) -> Iterator[Row]:
    """By machine: fitted on one half of its points, asked about the other; then what did not see any of its points."""
    samples = {table.machine: Samples.of(table.points, peaks_of(table)) for table in tables}
    for table in tables:
        hardware = load_hardware(table.machine)
        learned, asked = halves(table.points)
        found = fitted(learned, table)
        yield _row(table, WITH_RATIOS, with_fit(hardware, found.fit, found.by_shape), asked)
        yield _row(table, ALONE, with_fit(hardware, found.fit), asked)
        yield _row(table, SHIPPED, hardware, table.points)
        others = [samples[machine] for machine in samples if machine != table.machine]
        if others:
            yield _row(table, OTHERS, with_fit(hardware, fit_gemm(Samples.joined(others))), table.points)


def fitted(points: Sequence[Point], table: LinearTable) -> Tables:
    shapes = dict(zip(OPS, load_config(table.model).matrices, strict=True))
    products = {shape: [point for point in points if point.op == op] for op, shape in shapes.items()}
    return fit_tables(points, products, peaks_of(table))


def peaks_of(table: LinearTable) -> Peaks:
    gpu = load_hardware(table.machine).gpu
    return Peaks(gpu.bandwidth_bytes_per_s, gpu.flops[table.dtype], DTYPE_BYTES[table.dtype])


def with_fit(hardware: Hardware, fit: Fit, by_shape: ByShape | None = None) -> Hardware:
    gemm = replace(fit.gemm, by_shape=by_shape)
    return replace(hardware, gpu=replace(hardware.gpu, gemm=gemm, op_fixed_s=fit.fixed_s))


def without_small_ops(hardware: Hardware) -> Hardware:
    return replace(hardware, gpu=replace(hardware.gpu, small_ops=None))


def _roofline(table: LinearTable, hardware: Hardware) -> Roofline:
    return Roofline(model_costs(load_config(table.model), table.dtype), machine_rates(hardware, table.dtype))


@dataclass(frozen=True, slots=True)
class SmallOpRow:
    """Norms, rotary positions and activations of a layer by the catalogue's entry."""

    machine: str
    share: float  # of the products' time, in the median over token counts
    errors: Errors


def small_op_row(table: LinearTable) -> SmallOpRow:
    hardware = load_hardware(table.machine)
    whole, alone = _roofline(table, hardware), _roofline(table, without_small_ops(hardware))
    products_s = {point.tokens: point.seconds for point in layer_points(table.points)}
    shares = [seconds / products_s[tokens] for tokens, seconds in table.between]
    missed = [(whole.linear_s(tokens) - alone.linear_s(tokens)) / seconds - 1 for tokens, seconds in table.between]
    return SmallOpRow(table.machine, float(np.median(shares)), _errors_of(missed))


def _row(table: LinearTable, constants: str, hardware: Hardware, points: Sequence[Point]) -> Row:
    costs = _roofline(table, without_small_ops(hardware))
    by_op = {op: [point for point in points if point.op == op] for op in OPS}
    gemm = hardware.gpu.gemm
    return Row(
        table.machine,
        constants,
        gemm.bandwidth_efficiency,
        gemm.compute_efficiency,
        gemm.exponent,
        hardware.gpu.op_fixed_s,
        gemm.tile_rows,
        errors(costs, layer_points(points)),
        errors(costs, points),
        {op: errors(costs, chosen) for op, chosen in by_op.items()},
    )


def errors(costs: Roofline, points: Sequence[Point]) -> Errors:
    return _errors_of([_predicted_s(costs, point) / point.seconds - 1 for point in points])


def _errors_of(missed: Sequence[float]) -> Errors:
    found = np.abs(missed)
    return Errors(float(found.mean()), float(np.quantile(found, 0.95)), float(found.max()), len(found))


def _predicted_s(costs: Roofline, point: Point) -> float:
    """What a simulation charges: a layer's products as one op, or one matrix."""
    if point.op == "layer":
        return costs.linear_s(point.tokens)
    return costs.matrix_s((Part(point.op),), 1.0, point.tokens)


def accuracy_of(found: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """What cost_accuracy.json holds: of a half that was not learned from, and by constants of the other machines."""
    told: dict[str, dict[str, dict[str, float]]] = {}
    for row in found:
        if name := {WITH_RATIOS: HALF, ALONE: FORMULA, OTHERS: FITTED_TO_OTHERS}.get(row.constants):
            told.setdefault(row.machine, {})[name] = {
                "layer_mean": round(row.layer.mean, 4),
                "layer_p95": round(row.layer.p95, 4),
                "op_mean": round(row.op.mean, 4),
                "op_p95": round(row.op.p95, 4),
            }
    return told


@dataclass(frozen=True, slots=True)
class LogRow:
    """gpu_only on the simulator beside what vLLM did; errors are simulated over observed, less one."""

    constants: str
    keep_preempted_kv: bool
    observed: Figures
    simulated: Figures
    errors: dict[str, float]
    preemptions: int
    preemptions_observed: int
    found_tokens: int
    latency_correlation: float
    steps: int


def log_rows(folder: Path) -> Iterator[LogRow]:
    model, hardware = load_config(LOG_MODEL), load_hardware(LOG_MACHINE)
    log = load_log(folder, model.layers)
    measured = ProfileTable(measured_costs(folder))
    yield _log_row(log, TABLES, measured, gpu_only_core)
    yield _log_row(log, TABLES, measured, forgetting_core)
    shipped = Roofline(model_costs(model, LOG_DTYPE), machine_rates(hardware, LOG_DTYPE))
    yield _log_row(log, SHIPPED, shipped, gpu_only_core)


def _log_row(log: Log, constants: str, costs: CostTable, make_core: CoreMaker) -> LogRow:
    simulated = replay(log, costs, make_core)
    here, there = figures(simulated.requests), figures(log.requests)
    return LogRow(
        constants,
        make_core is gpu_only_core,
        there,
        here,
        {name: value / asdict(there)[name] - 1 for name, value in asdict(here).items()},
        simulated.preemptions,
        PREEMPTIONS_THERE,
        simulated.found_tokens,
        latency_correlation(simulated.requests, log.requests),
        simulated.steps,
    )


def main(as_json: bool) -> None:
    folder = data_folder()
    tables = linear_tables(folder)
    found, small, logged = list(rows(tables)), [small_op_row(table) for table in tables], list(log_rows(folder))
    if as_json:
        listed = {"rows": _dicts(found), "small_ops": _dicts(small), "log": _dicts(logged)}
        print(json.dumps({**listed, "accuracy": accuracy_of(found)}))
        return
    _print_rows(found)
    _print_small(small)
    _print_log(logged)


def _dicts(listed: Sequence[Row] | Sequence[SmallOpRow] | Sequence[LogRow]) -> list[dict[str, object]]:
    return [asdict(row) for row in listed]


def _print_small(small: Sequence[SmallOpRow]) -> None:
    for row in small:
        print(
            f"{row.machine}, norms, rotary positions and activations: {row.share:.1%} of a layer's products; by "
            f"catalogue entry {_words(row.errors)}"
        )


def _print_log(logged: Sequence[LogRow]) -> None:
    for row in logged:
        print(
            f"{LOG_MACHINE}, vLLM's log of 300 requests, by {row.constants}, {_kept(row)}: output tokens/s "
            f"{row.simulated.output_tokens_per_s:.0f} ({row.errors['output_tokens_per_s']:+.1%}), mean TPOT "
            f"{row.simulated.mean_tpot_s * 1e3:.2f} ms ({row.errors['mean_tpot_s']:+.1%}), mean TTFT "
            f"{row.simulated.mean_ttft_s:.1f} s ({row.errors['mean_ttft_s']:+.1%}), {row.preemptions} preemptions "
            f"({row.preemptions_observed} there), latencies correlate {row.latency_correlation:.4f}"
        )


def _kept(row: LogRow) -> str:
    return f"{row.found_tokens} tokens found again" if row.keep_preempted_kv else "all recomputed"


def _print_rows(found: Sequence[Row]) -> None:
    for row in found:
        print(
            f"{row.machine} by {row.constants}: per layer {_words(row.layer)}; per op {_words(row.op)} "
            f"(e_b {row.bandwidth_efficiency:.3f}, e_c {row.compute_efficiency:.3f}, p {row.exponent:.2f}, "
            f"fixed {row.fixed_s * 1e6:.1f} us, tile {row.tile_rows})"
        )


def _words(errors: Errors) -> str:
    return f"mean {errors.mean:.1%}, p95 {errors.p95:.1%} of {errors.points}"
