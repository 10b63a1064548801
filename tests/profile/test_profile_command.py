"""`harness profile` as a user runs it: a quick one from end to end, then a simulation and a native run with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.profile_file import load_profile
from harness.profile_request import checked_request
from results.query import load_run
from tests.e2e.commands import harness
from tests.harness.conftest import Call

LIMITS = ("--max-batch-tokens", 64, "--max-context", 64)
EXPERIMENT = {
    "schema_version": 1,
    "name": "profiled",
    "backend": "sim",
    "profile": "here.json",
    "model": "tiny-1m",
    "dtype": "float32",
    "budget": {"accel_kv_tokens": 512, "cpu_threads": 1, "max_batch": 4, "max_batch_tokens": 32},
    "engines": ["gpu_only"],
    "workloads": [{"kind": "long_output", "prompt": 10, "output": 8, "requests": 6}],
    "emulation": {"mode": "native"},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiled")
    options = (
        "--backend",
        "cpu",
        "--model",
        "tiny-1m",
        "--dtype",
        "float32",
        "--out",
        "here.json",
        "--quick",
        "--rounds",
        "2",
    )
    answer = harness("profile", *options, *LIMITS, cwd=folder, timeout_s=500)
    assert answer.code == 0, answer.err
    assert "held out, alone, all parts: median error" in answer.out
    assert "here.json: written" in answer.out
    assert "round 2 of 2" in answer.err
    (folder / "profiled.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return folder


def test_the_file_says_what_was_measured_and_on_what(here: Path) -> None:
    profile = load_profile(here / "here.json")
    setting = profile.setting
    assert (setting.model, setting.backend, setting.accel_cores, setting.grid) == ("tiny-1m", "cpu", 1, "quick")
    assert (setting.max_batch_tokens, setting.max_context, setting.rounds) == (64, 64, 2)
    assert profile.machine["cores"]
    assert profile.versions["torch"] != "not installed"
    assert all(p.p10_s <= p.median_s <= p.p90_s for p in (*profile.points.between, *profile.points.decode_attention))
    assert profile.accuracy.held_out
    assert profile.overhead.step_s > 0
    raw = json.loads((here / "here.json").read_text())
    assert raw["label"] == "measured"


@pytest.mark.parametrize(("backend", "label"), [("sim", "simulated"), ("cpu", "emulated")])
def test_it_simulates_and_predicts(here: Path, backend: str, label: str) -> None:
    answer = harness("run", "--config", "profiled.yaml", "--backend", backend, "--out", backend, cwd=here)
    assert answer.code == 0, answer.err
    assert label in answer.out
    [run_dir] = (here / backend).iterdir()
    [cell] = load_run(run_dir).cells
    assert (cell.label, cell.status) == (label, "ok")
    assert cell.metrics["prediction_ratio"] > 0
    assert load_run(run_dir).manifest.config["profile"] == "here.json"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backend", "sim"), "--backend sim: nothing runs there"),
        (("--backend", "endpoint"), "--backend endpoint: nothing runs there"),
        (("--dtype", "int3"), "--dtype int3: expected one of float32"),
        (("--model", "tiny-2m"), "unknown model 'tiny-2m'"),
        (("--max-context", 5000), "--max-context 5000: tiny-1m ends at 4096"),
        (("--accel-cores", 4096), "--accel-cores 4096: this process may use"),
        (("--out", "no/such/folder/x.json"), "there is no folder no/such/folder"),
        (("--out", "."), "is a folder"),
    ],
)
def test_mistakes_are_one_line_and_measure_nothing(call: Call, options: tuple[object, ...], said: str) -> None:
    given = dict(zip(options[::2], options[1::2], strict=True))
    usual: dict[object, object] = {"--model": "tiny-1m", "--out": "x.json"}
    arguments = [part for pair in (usual | given).items() for part in pair]
    answer = call("profile", *arguments)
    assert answer.code == 2
    [line] = answer.errors
    assert said in line
    assert not Path("x.json").exists()


def test_cuda_without_a_gpu(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.local_gpus", lambda: ([], "no driver"))
    answer = call("profile", "--model", "tiny-1m", "--out", "x.json", "--backend", "cuda")
    assert answer.code == 2
    assert "needs a GPU: no driver" in answer.errors[0]


def test_a_model_of_one_layer(tmp_path: Path) -> None:
    from tests.harness.test_bad_input import HUGGING_FACE_CONFIG

    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HUGGING_FACE_CONFIG | {"num_hidden_layers": 1}))
    with pytest.raises(ValueError, match="has one layer"):
        checked_request(tmp_path / "x.json", "cpu", str(folder), "float32", max_batch_tokens=64, max_context=64)
