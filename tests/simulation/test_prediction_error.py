"""What a policy believes is made wrong, and what ops take is not: whole cells of the shipped experiment, in small."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.build import check
from harness.cell import run_cell
from harness.config import load_experiment
from harness.plan import CellSpec, expand
from results.schema import STEPS_FILE, CellSummary
from results.store import write_text

CONFIG = "prediction_error"
SMALL = (
    "workloads=[{kind: long_output, prompt: 1000, output: 60, jitter: 0.1, requests: 16}]",
    "measure.draws=0",
)
OBSERVED = ("step", "mode", "started_s", "ended_s", "decode_rows", "moved_tokens")


@lru_cache(maxsize=64)
def _cells(*sets: str) -> dict[tuple[str, str], CellSpec]:
    cells = expand(load_experiment(CONFIG, [*SMALL, *sets], {}), "sim")
    return {(cell.engine.name, cell.workload.name): cell for cell in cells}


def _only(engine: str, predictor: str) -> CellSpec:
    (found,) = [cell for (name, _), cell in _cells(f"predictor={predictor}").items() if name == engine]
    return found


def _ran(folder: Path, cell: CellSpec) -> tuple[CellSummary, dict[str, list[Any]]]:
    cell_dir = folder / cell.cell_id
    cell_dir.mkdir()
    write_text(cell_dir / "spec.json", cell.to_json())
    return run_cell(cell_dir), pq.read_table(cell_dir / STEPS_FILE).to_pydict()


def _without_wall(summary: CellSummary) -> dict[str, float]:
    wall = ("cell_wall_s", "scheduler", "startup")
    return {key: value for key, value in summary.metrics.items() if not key.startswith(wall)}


@pytest.mark.parametrize("engine", ["neo", "apex"])
def test_a_hybrid_decides_otherwise_when_it_believes_otherwise(tmp_path: Path, engine: str) -> None:
    (_, right), (_, wrong) = (_ran(tmp_path, _only(engine, f"{{host_attention: {bias}}}")) for bias in (1, 4))
    assert [right[key] for key in OBSERVED] != [wrong[key] for key in OBSERVED]


def test_who_asks_no_predictor_decides_the_same(tmp_path: Path) -> None:
    predictors = ("{bias: 1}", "{bias: 4, host_attention: 0.2, noise: 0.5}")
    (_, right), (_, wrong) = (_ran(tmp_path, _only("gpu_only", each)) for each in predictors)
    assert [right[key] for key in OBSERVED] == [wrong[key] for key in OBSERVED]


@pytest.mark.parametrize("engine", ["neo", "apex"])
def test_nothing_skewed_is_the_same_to_the_last_bit(tmp_path: Path, engine: str) -> None:
    neutral, none = _only(engine, "{bias: 1, noise: 0, seed: 3}"), _only(engine, "null")
    assert none.predictor is None
    (told, steps), (plain, plain_steps) = _ran(tmp_path, neutral), _ran(tmp_path, none)
    del steps["scheduler_s"], plain_steps["scheduler_s"]
    assert steps == plain_steps
    assert _without_wall(told) == _without_wall(plain)
    assert "predictor" not in plain.resolved


@pytest.mark.parametrize("bias", [0.5, 2.0])
def test_observed_over_predicted_is_the_inverse_of_the_bias(tmp_path: Path, bias: float) -> None:
    summary, steps = _ran(tmp_path, _only("gpu_only", f"{{bias: {bias}}}"))
    took_s = [end - start for start, end in zip(steps["started_s"], steps["ended_s"], strict=True)]
    ratios = [took / predicted for took, predicted in zip(took_s, steps["predicted_s"], strict=True)]
    assert ratios == pytest.approx([1 / bias] * len(ratios), rel=1e-9)
    assert summary.metrics["prediction_ratio"] == pytest.approx(bias, rel=1e-9)


@pytest.mark.parametrize("engine", ["neo", "apex"])
def test_an_error_of_the_host_is_one_of_each_step_and_does_not_add_up(tmp_path: Path, engine: str) -> None:
    """Where steps follow from each other a belief that is twice too slow is off by a factor, not by the whole run."""
    summary, _ = _ran(tmp_path, _only(engine, "{host_attention: 2}"))
    assert 1.0 <= summary.metrics["prediction_ratio"] < 2.5


def test_being_wrong_in_everything_alike_changes_nothing_that_is_compared(tmp_path: Path) -> None:
    (_, right), (_, wrong) = (_ran(tmp_path, _only("neo", f"{{bias: {bias}}}")) for bias in (1, 4))
    assert [right[key] for key in OBSERVED] == [wrong[key] for key in OBSERVED]


def test_noise_recurs(tmp_path: Path) -> None:
    cells = [_only("neo", f"{{noise: 0.5, seed: {seed}}}") for seed in (1, 1, 2)]
    cells[1] = replace(cells[1], cell_id="again")
    (_, once), (_, again), (_, other) = (_ran(tmp_path, cell) for cell in cells)
    assert once["predicted_s"] == again["predicted_s"]
    assert once["predicted_s"] != other["predicted_s"]


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_lists_are_swept_and_crossed_on_the_same_requests() -> None:
    cells = _cells("predictor={host_attention: [0.5, 1], noise: [0, 0.1], links: 1.5}")
    points = [f"long_output-host_attention{bias}-noise{noise}" for bias in ("0.5", "1") for noise in ("0", "0.1")]
    assert list(dict.fromkeys(workload for _, workload in cells)) == points
    assert len(cells) == 3 * len(points) == len({cell.cell_id for cell in cells.values()})
    assert len({cell.measure.seed for cell in cells.values()}) == 1
    cell = cells["neo", points[1]]
    assert cell.predictor is not None
    skew = cell.predictor.skew
    assert (skew.host_attention, skew.noise, skew.links) == (0.5, 0.1, 1.5)
    assert CellSpec.from_json(cell.to_json()) == cell


def test_a_bias_is_on_every_factor() -> None:
    predictor = _only("neo", "{bias: 2, links: 0.5}").predictor
    assert predictor is not None
    assert (predictor.skew.links, predictor.skew.accel_linear, predictor.skew.noise) == (1.0, 2.0, 0.0)


def test_ids_tell_beliefs_apart() -> None:
    plain = _only("neo", "null")
    ids = {plain.cell_id, _only("neo", "{bias: 1}").cell_id, _only("neo", "{bias: 2}").cell_id}
    assert len(ids) == 3


def test_where_nothing_is_believed_there_is_nothing_to_skew() -> None:
    sets = ("predictor={bias: 2}", "backend=cpu", "emulation.mode=native", "dtype=float32", "model=tiny-1m")
    cell = expand(load_experiment(CONFIG, [*SMALL, *sets, "budget.accel_memory=auto"], {}), "cpu")[0]
    assert [line for line in check(cell) if line.startswith("predictor")] == [
        "predictor: nothing is believed on cpu that could be skewed; give a profile, or leave it out"
    ]
