"""The mock among the engines: listed, chosen in an experiment, run on each clock, refused where it would mislead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines.registry import is_policy
from harness.build import check, core_for, offline_adapter
from harness.cell import run_cell
from harness.errors import ConfigError
from results.schema import Label, Status
from results.store import read_requests
from tests.harness.conftest import Call, Write
from tests.mock.worlds import cell_spec

WORKLOAD = {"kind": "long_output", "prompt": 10, "output": 5, "jitter": 0.0, "rate": 40, "requests": 12}


def test_it_is_listed(call: Call) -> None:
    rows = json.loads(call("list", "engines", "--json").out)
    assert "no model" in next(row["what it does"] for row in rows if row["engine"] == "mock")
    assert "mock" in call("list", "engines").out
    assert not is_policy("mock")


def test_mistakes_in_its_options_are_named(call: Call, write: Write) -> None:
    answer = call("validate", "--config", write(engines=[{"kind": "mock", "ttft": 0.1}, {"kind": "mock", "jitter": 3}]))
    assert answer.code == 2
    assert 'did you mean "ttft_s"' in answer.err
    assert "jitter: must be below 1" in answer.err


def test_a_simulated_cell_says_that_no_model_ran_and_shows_the_law(tmp_path: Path) -> None:
    cell_spec(tmp_path, workloads=[WORKLOAD])
    summary = run_cell(tmp_path)
    assert (summary.status, summary.label) == (Status.OK, Label.SIMULATED)
    assert summary.resolved["model"] == "mock engine: no model runs"
    assert summary.resolved["mock_ttft_s"] == 0.1
    assert summary.metrics["ttft_s_mean"] == pytest.approx(0.1)
    assert summary.metrics["tpot_s_mean"] == pytest.approx(0.01)
    assert summary.metrics["dispatch_delay_s_max"] == 0
    assert len(read_requests(tmp_path)) == 12


def test_on_the_wall_clock_it_is_never_early(tmp_path: Path) -> None:
    cell_spec(tmp_path, workloads=[WORKLOAD], backend="cpu", dtype="float32")
    summary = run_cell(tmp_path)
    assert (summary.status, summary.label) == (Status.OK, Label.EMULATED)
    requests = read_requests(tmp_path)
    assert (requests.first_token_s - requests.arrival_s >= 0.1).all()
    assert summary.metrics["ttft_s_mean"] < 1.0


def test_it_is_refused_where_it_would_be_taken_for_an_engine(tmp_path: Path) -> None:
    spec = cell_spec(tmp_path)
    assert check(spec) == []
    with pytest.raises(ConfigError, match=r"engine mock: .* runs no model"):
        offline_adapter(spec, 10)
    with pytest.raises(ConfigError, match=r"engine mock: decides for itself"):
        core_for(spec)
    assert "runs no model" in check(replace(spec, backend="cuda", label="measured"))[0]


def test_a_run_beside_a_real_engine(call: Call, write: Write, tmp_path: Path) -> None:
    engines = ["gpu_only", {"kind": "mock", "ttft_s": 0.05, "slots": 2}]
    answer = call("run", "--config", write(engines=engines), "--out", tmp_path / "runs", "--json")
    assert answer.code == 0, answer.err
    cells = json.loads(answer.out)["cells"]
    assert [cell["engine"] for cell in cells] == ["gpu_only", "mock"]
