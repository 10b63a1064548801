"""A journal replays to identical plans, and a number changed in it is noticed: scheduling depends on nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engines.core.scheduler import EngineCore
from harness.build import JOURNAL_FILE, core_for
from harness.cell import run_cell
from harness.experiment import Experiment
from harness.journal import replay
from harness.plan import CellSpec, expand
from results.store import read_requests, read_steps
from tests.model_folders import make_folder
from tests.replay.forgery import lines_of, rewrite

OPTIONS: dict[str, dict[str, Any]] = {
    "recompute": {"preemption": "recompute"},
    "swap": {"preemption": "swap"},
    "keep": {"keep_preempted_kv": True},
}
KINDS = [(mode, options) for mode in ("native", "paced") for options in OPTIONS]


@dataclass(frozen=True)
class Served:
    """One cell that really ran, starved of blocks."""

    spec: CellSpec
    folder: Path
    options: str

    @property
    def journal(self) -> Path:
        return self.folder / JOURNAL_FILE

    def core(self) -> EngineCore:
        return core_for(self.spec)


def starving(model: Path, mode: str, engine: dict[str, Any], **budget: int) -> CellSpec:
    """`budget`: beside the accelerator's blocks, of which there are too few."""
    experiment = {
        "schema_version": 1,
        "name": "replayed",
        "backend": "cpu",
        "hardware": "t4_g4dn_4xlarge",
        "model": str(model),
        "dtype": "float32",
        "budget": {"accel_kv_tokens": 160, **budget},
        "engines": [engine],
        "workloads": [
            {"kind": "long_output", "prompt": 40, "output": 48, "jitter": 0.4, "requests": 12, "rate": 200, "name": "w"}
        ],
        "emulation": {"mode": mode, "pace": {"reference_model": "llama-2-7b", "time_scale": 0.5}},
    }
    [cell] = expand(Experiment.model_validate(experiment), "cpu")
    return cell


def gpu_only(model: Path, mode: str, options: str) -> CellSpec:
    engine = {"kind": "gpu_only", **OPTIONS[options]}
    return starving(model, mode, engine, host_kv_tokens=1024, max_batch=6, max_batch_tokens=48)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def served(request: pytest.FixtureRequest, model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    spec = gpu_only(make_folder(model_root, kv_heads=2), *request.param)
    folder = tmp_path_factory.mktemp("cell")
    (folder / "spec.json").write_text(spec.to_json())
    run_cell(folder)
    return Served(spec, folder, request.param[1])


def test_the_run_is_worth_replaying(served: Served) -> None:
    requests, steps = read_requests(served.folder), read_steps(served.folder)
    assert (requests["status"] == "finished").all()
    assert (requests["output_tokens"] == requests["asked_tokens"]).all()
    assert requests["preemptions"].sum() >= 5
    assert bool(steps["moved_tokens"].sum()) == (served.options == "swap")
    assert bool(steps["found_tokens"].sum()) == (served.options == "keep")


def test_a_journal_replays_to_identical_plans(served: Served) -> None:
    core = served.core()
    replayed = replay(served.journal, core)
    assert replayed.first_difference is None
    assert replayed.steps == len(read_steps(served.folder)) > 50
    assert not core.has_work, "every request of the journal has ended"


@pytest.mark.parametrize(("column", "change"), [(0, 1000), (1, -1), (1, 1), (2, -1)])
def test_a_changed_submission_is_noticed(served: Served, tmp_path: Path, column: int, change: int) -> None:
    """Id, prompt or output. (A longer last answer would only ask for steps after the last one of the journal.)"""
    submissions = [index for index, line in enumerate(lines_of(served.journal)) if "submit" in line]
    assert len(submissions) == 12
    for index in submissions[::3]:

        def tamper(lines: list[dict[str, Any]], index: int = index) -> None:
            lines[index]["submit"][column] += change

        forged = rewrite(served.journal, tmp_path / "forged.gz", tamper)
        assert replay(forged, served.core()).first_difference is not None, f"line {index} forged"


def test_a_changed_plan_or_order_is_noticed(served: Served, tmp_path: Path) -> None:
    def swap_fingerprints(lines: list[dict[str, Any]]) -> None:
        first, second = [line for line in lines if "plan" in line][10:12]
        first["plan"], second["plan"] = second["plan"], first["plan"]

    def swap_submissions(lines: list[dict[str, Any]]) -> None:
        first, second = [index for index, line in enumerate(lines) if "submit" in line][:2]
        lines[first], lines[second] = lines[second], lines[first]

    for tamper in (swap_fingerprints, swap_submissions):
        forged = rewrite(served.journal, tmp_path / "forged.gz", tamper)
        assert replay(forged, served.core()).first_difference is not None


def test_another_configuration_is_noticed(served: Served) -> None:
    for other in OPTIONS.keys() - {served.options}:
        assert replay(served.journal, core_for(gpu_only(Path(served.spec.model), "native", other))).first_difference


def test_a_journal_of_another_format_is_refused(served: Served, tmp_path: Path) -> None:
    forged = rewrite(served.journal, tmp_path / "forged.gz", lambda lines: lines[0].update(format=99))
    with pytest.raises(ValueError, match="journal format 99"):
        replay(forged, served.core())
