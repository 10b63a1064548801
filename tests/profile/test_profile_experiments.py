"""`profile:` in an experiment: what it replaces, where it has no place, and every mistake as one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.core.profile_table import ProfileTable
from engines.core.roofline import Roofline
from harness.build import check, core_for
from harness.costs import cost_table, predictor
from harness.errors import ConfigError
from harness.experiment import Experiment
from harness.plan import CellSpec, expand
from harness.profile_file import save_profile
from results.query import load_run
from results.schema import Label
from results.store import read_steps
from tests.harness.conftest import VALID, Call, Write
from tests.profile import laws

NATIVE = {"backend": "cpu", "emulation": {"mode": "native"}}


def cell(profile: Path | None, **changes: Any) -> CellSpec:
    named = None if profile is None else str(profile)
    values = VALID | {"hardware": None, "dtype": "float32", "profile": named} | changes
    experiment = Experiment.model_validate(values)
    assert experiment.backend != "auto"
    return expand(experiment, experiment.backend)[0]


def test_sim_needs_no_hardware(profile_file: Path, call: Call, write: Write, tmp_path: Path) -> None:
    config = write(hardware=None, dtype="float32", profile=str(profile_file))
    answer = call("run", "--config", config, "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "simulated" in answer.out
    [run_dir] = (tmp_path / "runs").iterdir()
    run = load_run(run_dir)
    [summary] = run.cells
    assert summary.label is Label.SIMULATED
    assert summary.metrics["prediction_ratio"] == pytest.approx(1.0), "belief and truth come from one file"
    steps = read_steps(run.folder.cell_path(summary.cell_id))
    decodes = steps[(steps["prefill_rows"] == 0) & (steps["decode_rows"] == 2)]
    took_s = (decodes["ended_s"] - decodes["started_s"]).iloc[0]
    table = laws.made_profile().table()
    assert took_s > laws.LAYERS * table.linear_s(2), "as long as this machine takes, not a T4"


def test_the_outcome_and_the_belief_are_two_objects(profile_file: Path) -> None:
    spec = cell(profile_file)
    truth, belief = cost_table(spec), predictor(spec)
    assert isinstance(truth, ProfileTable)
    assert isinstance(belief, ProfileTable)
    assert truth is not belief
    assert truth.linear_s(9) == belief.linear_s(9)


def test_hardware_beside_a_profile_stays_unused_in_sim(profile_file: Path) -> None:
    assert isinstance(cost_table(cell(profile_file, hardware="t4_g4dn_4xlarge")), ProfileTable)
    assert isinstance(cost_table(cell(None, hardware="t4_g4dn_4xlarge")), Roofline)


def test_native_runs_at_full_speed_and_believes_the_profile(profile_file: Path) -> None:
    spec = cell(profile_file, **NATIVE)
    assert cost_table(spec) is None
    assert isinstance(predictor(spec), ProfileTable)
    assert predictor(cell(None, **NATIVE)) is None
    core_for(spec)


def test_a_profile_of_another_backend_or_of_more_cores(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    save_profile(path, laws.made_profile("cuda"))
    [problem] = check(cell(path, **NATIVE))
    assert "was measured on cuda, this is cpu" in problem
    save_profile(path, laws.made_profile(accel_cores=2))
    [problem] = check(cell(path, **NATIVE))
    assert "accel_cores 2, the budget has 1" in problem
    assert check(cell(path)) == [], "what is simulated has as many cores as were measured"


def test_a_cell_knows_its_profile_by_content(profile_file: Path, tmp_path: Path) -> None:
    spec = cell(profile_file)
    assert CellSpec.from_json(spec.to_json()) == spec
    save_profile(profile_file, laws.made_profile(accel_cores=2))
    assert cell(profile_file).cell_id != spec.cell_id
    with pytest.raises(ConfigError, match="has changed since this run was planned"):
        cost_table(spec)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "tiny-30m"}, ["profile: was measured with tiny-1m", "profile tiny-30m"]),
        ({"dtype": "bfloat16"}, ["profile: was measured in float32, not in bfloat16"]),
        ({"budget": {"accel_page_tokens": 32}}, ["profile: was measured with pages of 16 tokens"]),
        ({"emulation": {"pace": {"time_scale": 2}}}, ["profile: a measured table is neither scaled nor slowed"]),
        ({"backend": "cpu", "hardware": "t4_g4dn_4xlarge"}, ["profile: a paced cpu backend follows hardware:"]),
        ({"backend": "auto"}, ["hardware: missing: backend auto"]),
        ({"profile": "nowhere.json"}, ["profile: nowhere.json: no such file"]),
        ({"profile": 7}, ["profile", "7"]),
    ],
)
def test_mistakes(call: Call, write: Write, profile_file: Path, changes: dict[str, Any], said: list[str]) -> None:
    values = {"hardware": None, "dtype": "float32", "profile": str(profile_file)} | changes
    answer = call("validate", "--config", write(**values))
    assert answer.code == 2
    [line] = answer.errors
    assert all(words in line for words in said), line


def test_a_profile_of_another_version(call: Call, write: Write, profile_file: Path) -> None:
    raw = json.loads(profile_file.read_text())
    profile_file.write_text(json.dumps(raw | {"schema_version": 9}))
    answer = call("validate", "--config", write(hardware=None, dtype="float32", profile=str(profile_file)))
    assert answer.code == 2
    [line] = answer.errors
    assert "version 9, this harness reads 2" in line


def test_a_plan_of_native_cells_says_how_long(call: Call, write: Write, profile_file: Path) -> None:
    config = write(hardware=None, dtype="float32", profile=str(profile_file), **NATIVE)
    [planned] = json.loads(call("plan", "--config", config, "--json").out)["cells"]
    assert planned["about_s"] > 0
