"""The linear-op model against measured tables of three GPUs, at token counts that its constants have not seen.

Held: per layer, which is what a simulated step is made of, a mean error of 5 % and a p95 of 12 %. Per op it is less
good, and on an H100 not that good (6.8 to 7.2 %, p95 19 to 20 %): four products of unequal shapes have their tiles and
waves at unequal counts, and a machine has one table of ratios. The bounds below are what holds, not what was hoped for.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engines.core.roofline import Roofline
from engines.hardware import ByTokens, Gemm, load_hardware
from engines.model.config import load_config
from harness.bench_costs import (
    ALONE,
    OTHERS,
    SHIPPED,
    WITH_RATIOS,
    Row,
    errors,
    fitted,
    main,
    peaks_of,
    rows,
    with_fit,
)
from harness.costs import machine_rates, model_costs
from harness.errors import ConfigError
from harness.fitting import Fit, Peaks, Samples, best_knots, fit_gemm, fit_ratios
from harness.op_tables import LinearTable, Point, data_folder, halves, layer_points, linear_tables

MACHINES = ("a100", "h100", "rtx4090")
PER_OP = {"a100": (0.06, 0.15), "h100": (0.075, 0.205), "rtx4090": (0.05, 0.12)}  # mean, p95
A10 = Peaks(600e9, 125e12, 2)


@pytest.fixture(scope="module")
def tables(shared_data: Path) -> list[LinearTable]:
    return linear_tables(shared_data)


@pytest.fixture(scope="module")
def found(tables: list[LinearTable]) -> dict[tuple[str, str], Row]:
    return {(row.machine, row.constants): row for row in rows(tables)}


def test_tables_say_what_they_say(tables: list[LinearTable]) -> None:
    assert [table.machine for table in tables] == list(MACHINES)
    a100, _, rtx4090 = tables
    assert a100.points[0] == Point("qkv", 4096 * 3 * 4096, 1, 65e-3 * 1e-3)
    assert (rtx4090.points[2].op, rtx4090.points[2].parameters, rtx4090.points[2].tokens) == ("up", 4096 * 28672, 1)
    assert rtx4090.points[2].seconds == pytest.approx(247.3e-6, rel=1e-3)
    assert len(a100.points) == 4 * 259
    assert len(layer_points(rtx4090.points)) == 152
    assert layer_points(a100.points)[0].parameters == load_config("llama-2-7b").linear_parameters_per_layer


def test_halves_share_no_count_of_tokens(tables: list[LinearTable]) -> None:
    for table in tables:
        learned, asked = ({point.tokens for point in half} for half in halves(table.points))
        assert not learned & asked
        assert len(learned) - len(asked) in (0, 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_per_layer_the_held_out_half_is_met(found: dict[tuple[str, str], Row], machine: str) -> None:
    layer = found[machine, WITH_RATIOS].layer
    assert layer.points > 70
    assert layer.mean <= 0.05
    assert layer.p95 <= 0.12


@pytest.mark.parametrize("machine", MACHINES)
def test_per_op_what_holds(found: dict[tuple[str, str], Row], machine: str) -> None:
    op = found[machine, WITH_RATIOS].op
    mean, p95 = PER_OP[machine]
    assert op.mean <= mean
    assert op.p95 <= p95


@pytest.mark.parametrize("machine", MACHINES)
def test_ratios_help_and_constants_of_other_machines_are_worse(found: dict[tuple[str, str], Row], machine: str) -> None:
    with_ratios, alone, others = (found[machine, constants].layer.mean for constants in (WITH_RATIOS, ALONE, OTHERS))
    assert with_ratios < alone < others


def test_the_shipped_entry_of_the_rtx_4090_is_a_fit_to_its_table(found: dict[tuple[str, str], Row]) -> None:
    """Of both halves, so this one is no prediction."""
    assert found["rtx4090", SHIPPED].layer.mean <= 0.02
    assert found["rtx4090", SHIPPED].layer.p95 <= 0.05


def test_the_simulator_charges_what_was_measured_where_it_was(tables: list[LinearTable]) -> None:
    """Between the points nothing falls, so a ratio that would make more tokens cheaper is not met to the digit."""
    table = tables[2]
    learned, _ = halves(table.points)
    fit, ratios = fitted(learned, peaks_of(table))
    costs = _roofline(table, fit, ratios)
    kept = [point for point in layer_points(learned) if point.tokens in ratios.tokens]
    assert len(kept) == len(ratios.tokens) == 16
    assert errors(costs, kept).worst < 0.04
    assert sorted(abs(costs.linear_s(point.tokens) / point.seconds - 1) for point in kept)[8] < 1e-4
    seconds = [costs.linear_s(tokens) for tokens in range(1, 2200)]
    assert all(after >= before * (1 - 1e-9) for before, after in pairwise(seconds))


# --- the fit itself --------------------------------------------------------------------------------------------------


def test_known_constants_are_found_again() -> None:
    truth = Fit(Gemm(0.8, 0.6, 2.0), 8e-6)
    fit = fit_gemm(Samples.of(_points(truth), A10))
    assert fit.gemm.bandwidth_efficiency == pytest.approx(0.8, rel=1e-3)
    assert fit.gemm.compute_efficiency == pytest.approx(0.6, rel=1e-3)
    assert fit.gemm.exponent == pytest.approx(2.0, rel=1e-3)
    assert fit.fixed_s == pytest.approx(8e-6, rel=1e-3)


def test_ratios_are_one_where_the_formula_is_the_truth() -> None:
    truth = Fit(Gemm(0.8, 0.6, 2.0), 8e-6)
    points = [point for point in _points(truth) if point.op == "up"]
    ratios = fit_ratios(points, A10, truth, most=5)
    assert len(ratios.tokens) == 5
    assert (ratios.tokens[0], ratios.tokens[-1]) == (1, 4096)
    assert ratios.ratios == pytest.approx([1.0] * 5, abs=1e-3)


def test_knots_are_where_lines_break() -> None:
    xs = np.arange(9.0)
    ys = np.array([0.0, 1, 2, 3, 2, 1, 0, 0, 0])
    assert best_knots(xs, ys, 4) == [0, 3, 6, 8]
    assert best_knots(xs, ys, 2) == [0, 8]
    assert best_knots(xs, ys, 20) == list(range(9))


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_every_machine(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(shared_data))
    main(as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [row["constants"] for row in printed["log"]] == ["op tables", SHIPPED]
    assert [(row["machine"], row["constants"]) for row in printed["rows"]] == [
        (machine, constants) for machine in MACHINES for constants in (WITH_RATIOS, ALONE, SHIPPED, OTHERS)
    ]
    main(as_json=False)
    assert capsys.readouterr().out.count("per layer mean") == 12


def test_without_data_one_line_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="HARNESS_DATA"):
        data_folder()


def _points(truth: Fit) -> list[Point]:
    sizes = {"qkv": 4096 * 6144, "output": 4096 * 4096, "up": 4096 * 28672}
    return [
        Point(op, parameters, tokens, _seconds(truth, parameters, tokens))
        for tokens in (1, 8, 64, 128, 256, 512, 1024, 4096)
        for op, parameters in sizes.items()
    ]


def _seconds(truth: Fit, parameters: int, tokens: int) -> float:
    gemm = truth.gemm
    memory_s = parameters * 2 / (gemm.bandwidth_efficiency * A10.bandwidth_bytes_per_s)
    compute_s = 2 * parameters * tokens / (gemm.compute_efficiency * A10.flops)
    power = gemm.exponent
    return float((memory_s**power + compute_s**power) ** (1 / power)) + truth.fixed_s


def _roofline(table: LinearTable, fit: Fit, ratios: ByTokens) -> Roofline:
    hardware = with_fit(load_hardware(table.machine), fit, ratios)
    return Roofline(model_costs(load_config(table.model), table.dtype), machine_rates(hardware, table.dtype))
