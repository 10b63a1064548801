"""Claims about the machine that is here are measured there: which, by which cells, and in which words that is told.

A GPU is pretended to be here; nothing is pretended to have run on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.claim_runs import measured
from harness.claim_testbeds import beds_of, runs_for
from harness.claim_verdicts import Word, verdict
from harness.claims import Claim, Ratio, Trend, Trial, load_claims
from harness.errors import ConfigError
from harness.gpu import LocalGpu
from harness.plan import expand, resolve_backend
from harness.stats import MIN_PAIRS
from results.schema import CellSummary, Label, Status
from tests.harness.conftest import Call

T4 = "Tesla T4"
METRIC = "output_tokens_per_s_whole_run"
T4_RATIO = Trial(config="t4_llama2", workloads=("chat",), ratio=Ratio(ours="apex", theirs=("gpu_only", "neo")))


def _here(monkeypatch: pytest.MonkeyPatch, *names: str, torch_says: str = "") -> None:
    gpus = [LocalGpu(name, 16 << 30, "570") for name in names]
    monkeypatch.setattr("harness.plan.local_gpus", lambda: (gpus, "no driver"))
    monkeypatch.setattr("harness.plan.torch_reaches_gpu", lambda: torch_says)


def _claim(claim_id: str) -> Claim:
    return next(claim for claim in load_claims() if claim.id == claim_id)


# --- where ------------------------------------------------------------------------------------------------------------


def test_auto_measures_exactly_the_claims_about_the_gpu_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    _here(monkeypatch, T4)
    found = beds_of(load_claims(), "auto")
    here = {name for name, bed in found.items() if bed.measured}
    assert "apex_t4_over_gpu_only" in here
    tests = {claim.id: claim.test for claim in load_claims()}
    about_a_t4 = {claim.id for claim in load_claims() if claim.machine.startswith("T4") and tests[claim.id]}
    assert here == about_a_t4
    for name, bed in found.items():
        test = tests[name]
        assert test is not None
        if not bed.measured and test.weights is None:
            assert bed.why.endswith("is simulated") or "simulated only" in bed.why


@pytest.mark.parametrize(
    ("gpus", "torch_says", "is_measured", "why"),
    [
        ((T4,), "", True, "a Tesla T4 is here"),
        ((T4,), "this torch cannot use CUDA", False, "this torch cannot use CUDA"),
        (("NVIDIA A10",), "", False, "the GPU here is a NVIDIA A10"),
        ((), "", False, "no GPU here"),
    ],
)
def test_the_rule_is_that_of_backend_auto(
    monkeypatch: pytest.MonkeyPatch, gpus: Sequence[str], torch_says: str, is_measured: bool, why: str
) -> None:
    _here(monkeypatch, *gpus, torch_says=torch_says)
    bed = beds_of([_claim("apex_t4_over_gpu_only")], "auto")["apex_t4_over_gpu_only"]
    assert bed.measured is is_measured
    assert bed.why.startswith(why)


def test_who_has_packed_weights_is_simulated_even_here(monkeypatch: pytest.MonkeyPatch) -> None:
    _here(monkeypatch, T4)
    test = Trial(config="t4_llama2", ratio=Ratio(ours="apex_4bit", theirs=("gpu_only",)))
    claim = _claim("apex_t4_over_gpu_only").model_copy(update={"test": test})
    bed = beds_of([claim], "auto")[claim.id]
    assert (bed.measured, bed.why) == (False, "packed weights and several GPUs are simulated only: apex_4bit")


def test_sim_measures_nothing_and_cuda_simulates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _here(monkeypatch, T4)
    claims = [_claim("apex_t4_over_gpu_only"), next(c for c in load_claims() if c.id.startswith("apex_a10"))]
    assert [bed.measured for bed in beds_of(claims, "sim").values()] == [False, False]
    assert [bed.measured for bed in beds_of(claims, "cuda").values()] == [True, None]


def test_cuda_without_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    _here(monkeypatch)
    with pytest.raises(ConfigError, match="cuda needs a GPU: no driver"):
        beds_of(load_claims(), "cuda")
    answer = call("claims", "--only", "apex_t4", "--backend", "cuda")
    assert (answer.code, len(answer.errors)) == (2, 1)


def test_cuda_leaves_claims_about_other_machines_untested_and_says_why(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    _here(monkeypatch, "NVIDIA H200")
    answer = call("claims", "--only", "apex_t4_over_gpu_only", "--backend", "cuda")
    assert answer.code == 0, answer.err
    assert "Not testable here: only what this machine's GPU can measure was asked for: the GPU here is" in answer.out


# --- what would run ---------------------------------------------------------------------------------------------------


def test_what_runs_is_what_is_asked_about_often_enough_for_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    _here(monkeypatch, T4)
    over = Trial(config="t4_llama2", trend=Trend(engine="static_layers", over="cot", of="chat"))
    runs = runs_for([T4_RATIO, over])
    ((setup, experiment),) = runs.items()
    assert setup == ("t4_llama2", ())
    assert resolve_backend(experiment)[:2] == ("cuda", "measured")
    assert {engine.name for engine in experiment.engines} == {"gpu_only", "neo", "apex", "static_layers"}
    cells = expand(experiment, "cuda")
    assert {cell.workload.name for cell in cells} == {"chat", "cot"}
    assert {cell.repeat for cell in cells} == set(range(MIN_PAIRS))
    assert {cell.label for cell in cells} == {"measured"}


def test_tests_of_other_settings_are_other_runs() -> None:
    other = T4_RATIO.model_copy(update={"set": ("budget.cpu_threads=4",)})
    assert [run.budget.cpu_threads for run in runs_for([T4_RATIO, other, T4_RATIO]).values()] == [7, 4]


# --- from cells to a verdict ------------------------------------------------------------------------------------------


def _cells(engine: str, *rates: float, workload: str = "chat") -> list[CellSummary]:
    return [
        CellSummary(f"{engine}-{n}", engine, workload, "cuda", Label.MEASURED, n, Status.OK, {METRIC: rate})
        for n, rate in enumerate(rates)
    ]


def test_the_ratio_is_repeat_by_repeat_over_the_best_with_an_interval() -> None:
    cells = [
        *_cells("apex", 20, 40, 60, 80, 100),
        *_cells("neo", 9, 20, 30, 41, 50),
        *_cells("gpu_only", 10, 19, 29, 40, 49),
        *_cells("static_kv", *[1000] * 5),
    ]
    found = measured(T4_RATIO, cells)
    (point,) = found.points
    assert found.label == "measured"
    assert point.workload == "chat"
    assert point.value == pytest.approx((2.0 * 2.0 * 2.0 * 80 / 41 * 2.0) ** 0.2)
    assert point.low < point.value < point.high


def test_a_measurement_reproduces_or_does_not() -> None:
    claim = _claim("apex_t4_over_gpu_only").model_copy(update={"test": T4_RATIO})
    rivals = [*_cells("neo", 10, 10, 10, 10, 10), *_cells("gpu_only", 9, 9, 9, 9, 9)]
    met = verdict(claim, measured(T4_RATIO, [*_cells("apex", 19, 19.1, 18.9, 19, 19), *rivals]))
    assert (met.word, met.label) == (Word.REPRODUCED, "measured")
    missed = verdict(claim, measured(T4_RATIO, [*_cells("apex", 12, 12.1, 11.9, 12, 12), *rivals]))
    assert (missed.word, missed.label) == (Word.NOT_REPRODUCED, "measured")


@pytest.mark.parametrize("change", [{"status": Status.FAILED}, {"unfair": ("took 2 GiB more",)}])
def test_too_few_good_repeats_are_no_verdict(change: dict[str, object]) -> None:
    ours = _cells("apex", 19, 19, 19, 19, 19)
    ours[2] = replace(ours[2], **change)  # type: ignore[arg-type]
    rivals = [*_cells("neo", 10, 10, 10, 10, 10), *_cells("gpu_only", 9, 9, 9, 9, 9)]
    claim = _claim("apex_t4_over_gpu_only").model_copy(update={"test": T4_RATIO})
    found = verdict(claim, measured(T4_RATIO, [*ours, *rivals]))
    assert found.word is Word.UNTESTABLE
    assert found.why == "apex on chat: 4 of 5 repeats are good, 5 are needed"
    assert found.label == ""
