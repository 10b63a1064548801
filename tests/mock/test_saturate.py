"""The search for saturation on made-up engines, then on cells whose capacity is known or at least has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cell import run_cell
from harness.errors import ConfigError
from harness.experiment import Experiment
from harness.plan import CellSpec
from harness.saturate import Serve, Served, find_saturation
from harness.saturating_cell import is_saturating, run_saturating
from results.schema import CellSummary, Status
from tests.harness.conftest import VALID, Call, Write
from tests.mock.worlds import cell_spec
from workloads import Saturate, WorkloadError, asks_to_saturate, at_rate, build, search_of

SEARCH = Saturate(start_rate=1.0, most_probes=30, attainment=0.9, tolerance=0.01, spacing="constant")


def engine(share_at: Callable[[float, int], float]) -> Serve:
    def serve(rate_rps: float, attempt: int) -> Served:
        share = share_at(rate_rps, attempt)
        return Served(rate_rps, {"ttft_s": share, "tpot_s": 1.0}, share)

    return serve


def cliff(capacity_rps: float) -> Serve:
    return engine(lambda rate_rps, attempt: 1.0 if rate_rps <= capacity_rps else 0.2)


@pytest.mark.parametrize("capacity_rps", [0.013, 0.7, 1.0, 6.1, 500.0])
def test_doubling_then_bisecting_finds_a_cliff(capacity_rps: float) -> None:
    found = find_saturation(cliff(capacity_rps), SEARCH)
    assert found.rate_rps is not None
    assert capacity_rps / 1.011 <= found.rate_rps <= capacity_rps
    assert found.bound_by == "ttft_s"
    assert len(found.probes) < 30


def test_the_rates_tried() -> None:
    found = find_saturation(cliff(5.0), replace(SEARCH, most_probes=7))
    assert [probe.rate_rps for probe in found.probes] == pytest.approx([1, 2, 4, 8, 32**0.5, 4.757, 5.187], rel=1e-3)
    assert found.best == 5
    assert found.missed == 6


def test_every_probe_is_counted_and_none_is_too_many() -> None:
    for most_probes in range(2, 12):
        asked: list[float] = []

        def share_at(rate_rps: float, attempt: int, asked: list[float] = asked) -> float:
            asked.append(rate_rps)
            return 0.89 + 0.02 * (len(asked) % 2)  # never twice the same answer, and always near

        found = find_saturation(engine(share_at), replace(SEARCH, most_probes=most_probes))
        assert len(found.probes) == len(asked) <= most_probes


def test_near_the_boundary_the_majority_counts() -> None:
    shares = {0: 0.88, 1: 0.93, 2: 0.92}
    found = find_saturation(
        engine(lambda rate_rps, attempt: 1.0 if rate_rps < 3.9 else shares[attempt] if rate_rps < 4.1 else 0.3), SEARCH
    )
    at_four = [probe for probe in found.probes if probe.rate_rps == 4.0]
    assert [probe.met for probe in at_four] == [False, True, True]
    assert found.rate_rps is not None
    assert found.rate_rps >= 4.0


def test_noise_near_the_boundary_moves_the_answer_little() -> None:
    answers = []
    for seed in range(20):

        def share_at(rate_rps: float, attempt: int, seed: int = seed) -> float:
            noise = ((hash((seed, rate_rps, attempt)) % 1000) / 1000 - 0.5) * 0.04
            return min(1.0, max(0.0, 1.0 - 2 * max(0.0, rate_rps / 10 - 0.95) + noise))  # 0.9 at 10 per second

        answers.append(find_saturation(engine(share_at), SEARCH).rate_rps)
    assert all(rate is not None and 9.5 < rate < 10.5 for rate in answers)


def test_no_rate_or_every_rate() -> None:
    never = find_saturation(engine(lambda rate_rps, attempt: 0.1), replace(SEARCH, most_probes=4))
    assert (never.rate_rps, never.best) == (None, None)
    assert [probe.rate_rps for probe in never.probes] == [1, 0.5, 0.25, 0.125]
    always = find_saturation(engine(lambda rate_rps, attempt: 1.0), replace(SEARCH, most_probes=4))
    assert (always.rate_rps, always.bound_by) == (8.0, None)


# --- as a workload ----------------------------------------------------------------------------------------------------

ENTRY: dict[str, object] = {"kind": "long_output", "prompt": 20, "output": 11, "jitter": 0.0, "requests": 250}
SATURATE: dict[str, object] = {"kind": "saturate", "start_rate": 2.0, "most_probes": 25, "spacing": "constant"}


def test_an_entry_asks_for_a_search_and_can_be_had_at_any_rate() -> None:
    entry = ENTRY | {"arrivals": SATURATE}
    assert asks_to_saturate(entry)
    assert asks_to_saturate(ENTRY | {"arrivals": "saturate"})
    assert not asks_to_saturate(ENTRY | {"rate": 3})
    assert search_of(entry) == Saturate(2.0, 25, 0.9, 0.02, "constant")
    at_five = build(at_rate(entry, 5.0), 0)
    assert at_five.arrivals == "constant, 5/s"
    assert [request.arrival_s for request in at_five.requests[:3]] == pytest.approx([0, 0.2, 0.4])
    assert build(entry, 0).requests[1].arrival_s == 0.5
    assert "saturate" not in build(at_rate(ENTRY | {"arrivals": "saturate"}, 2.0), 0).arrivals


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [
        ({"rate": 3}, "unknown key 'rate'.*start_rate"),
        ({"start_rate": 0}, "start_rate must be more than 0"),
        ({"most_probes": 1}, "most_probes must be 2"),
        ({"attainment": 2}, "attainment must be"),
        ({"spacing": "poison"}, "did you mean 'poisson'"),
    ],
)
def test_mistakes_in_a_search_are_named(arrivals: dict[str, object], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        build(ENTRY | {"arrivals": {"kind": "saturate"} | arrivals}, 0)


def test_a_search_needs_an_slo(call: Call, write: Write) -> None:
    entry = ENTRY | {"arrivals": SATURATE}
    answer = call("validate", "--config", write(workloads=[entry]))
    assert answer.code == 2
    assert "workloads.0.arrivals" in answer.errors[0]
    assert "give slo:" in answer.errors[0]
    assert call("validate", "--config", write(workloads=[entry], slo={"ttft_s": 1.0})).code == 0


# --- as a cell --------------------------------------------------------------------------------------------------------


def saturating(tmp_path: Path, engine: dict[str, Any], slo: dict[str, float], **search: object) -> CellSpec:
    entry = ENTRY | {"arrivals": SATURATE | search}
    return cell_spec(tmp_path, engines=[engine], workloads=[entry], slo=slo)


def test_a_mock_of_known_capacity_is_found(tmp_path: Path) -> None:
    mock = {"kind": "mock", "ttft_s": 0.1, "tpot_s": 0.01, "slots": 4}  # 0.2 s each, four at a time: 20 per second
    spec = saturating(tmp_path, mock, {"ttft_s": 0.3, "tpot_s": 0.02})
    assert is_saturating(spec)
    summary = run_saturating(spec, tmp_path, run_cell)
    assert summary.status is Status.OK
    assert summary.cell_id == spec.cell_id
    assert summary.metrics["saturation_rps"] == pytest.approx(20.0, rel=0.05)
    assert summary.metrics["slo_attainment"] >= 0.9
    assert summary.metrics["saturation_probes"] <= 25
    assert summary.resolved["saturation"] == {"bound_by": "ttft_s", "attainment_asked": 0.9}
    assert "saturation: " in summary.notes[-1]
    assert {"requests.parquet", "steps.parquet", "probes.json", "spec.json"} <= {p.name for p in tmp_path.iterdir()}
    assert not (tmp_path / "probes").exists()
    assert CellSpec.from_json((tmp_path / "spec.json").read_text()) == spec
    assert len(json.loads((tmp_path / "probes.json").read_text())["probes"]) == summary.metrics["saturation_probes"]


def test_the_pace_can_be_what_binds(tmp_path: Path) -> None:
    mock = {"kind": "mock", "ttft_s": 0.1, "tpot_s": 0.01, "slots": 4}
    summary = run_saturating(saturating(tmp_path, mock, {"e2e_s": 0.4}), tmp_path, run_cell)
    assert summary.metrics["saturation_rps"] == pytest.approx(20.0, rel=0.05)
    assert summary.resolved["saturation"] == {"bound_by": "e2e_s", "attainment_asked": 0.9}


def test_gpu_only_on_the_simulator_saturates_somewhere(tmp_path: Path) -> None:
    spec = saturating(tmp_path, {"kind": "gpu_only"}, {"ttft_s": 0.2}, start_rate=50.0, tolerance=0.05)
    summary = run_saturating(spec, tmp_path, run_cell)
    assert summary.status is Status.OK
    probes = json.loads((tmp_path / "probes.json").read_text())["probes"]
    met = [probe["served"]["offered_rps"] for probe in probes if probe["met"]]
    missed = [probe["served"]["offered_rps"] for probe in probes if not probe["met"]]
    assert summary.metrics["saturation_rps"] == max(met)
    assert max(met) <= min(missed) <= 1.06 * max(met)
    assert (tmp_path / "journal.jsonl.gz").exists()


def test_an_slo_that_no_rate_meets_is_said(tmp_path: Path) -> None:
    spec = saturating(tmp_path, {"kind": "mock", "ttft_s": 0.1}, {"ttft_s": 0.05}, most_probes=3)
    summary = run_saturating(spec, tmp_path, run_cell)
    assert summary.status is Status.INVALID
    assert summary.metrics == {}
    assert "no rate met the slo: at 0.5 requests/s" in str(summary.error)


def test_an_slo_that_every_rate_meets_gives_a_lower_bound(tmp_path: Path) -> None:
    spec = saturating(tmp_path, {"kind": "mock", "ttft_s": 0.1}, {"ttft_s": 0.2}, most_probes=3)
    summary = run_saturating(spec, tmp_path, run_cell)
    assert summary.metrics["saturation_rps"] == pytest.approx(8.0)
    assert "it may be higher" in summary.notes[-1]


def test_a_probe_that_proves_nothing_is_tried_again_and_then_ends_the_search(tmp_path: Path) -> None:
    unfit = {0, 3, 4}  # by number of the run; the first two probes take three runs

    def sometimes(folder: Path, runs: list[int] = []) -> CellSummary:  # noqa: B006
        runs.append(len(runs))
        summary = run_cell(folder)
        return replace(summary, status=Status.INVALID, error="too slow") if runs[-1] in unfit else summary

    spec = saturating(tmp_path, {"kind": "mock"}, {"ttft_s": 0.2})
    summary = run_saturating(spec, tmp_path, sometimes)
    assert summary.status is Status.INVALID
    assert summary.error == "the probe at 8 requests/s, tried 2 times: too slow"
    assert (tmp_path / "requests.parquet").exists()
    assert not (tmp_path / "probes").exists()


def test_all_warm_up_leaves_nothing_to_judge(tmp_path: Path) -> None:
    spec = saturating(tmp_path, {"kind": "mock"}, {"ttft_s": 0.2})
    spec = replace(spec, measure=replace(spec.measure, warmup_requests=250))
    with pytest.raises(ConfigError, match="warmup_requests"):
        run_saturating(spec, tmp_path, run_cell)


def test_other_experiments_search_for_nothing(tmp_path: Path) -> None:
    assert not is_saturating(cell_spec(tmp_path))
    assert Experiment.model_validate(VALID).slo is None
