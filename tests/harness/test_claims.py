"""The ledger: every claim can be read and tested, verdicts say what was shown, and no constant comes from a claim."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from engines.hardware import catalogue_names, load_hardware
from harness.claim_points import Found, Point, found_for, unknown_names
from harness.claim_verdicts import Word, verdict
from harness.claims import Claim, Expect, Ratio, Trial, chosen, load_claims
from harness.errors import ConfigError

CLAIMANTS = ("APEX", "NEO", "FlexGen", "TwinPilots", "survey")


def _claim(expect: Expect, tolerance: float = 0.0) -> Claim:
    test = Trial(config="quickstart", ratio=Ratio(ours="apex", theirs=("gpu_only",)))
    return Claim(
        id="x",
        who="somebody",
        version="1",
        source="paper",
        machine="a machine",
        model="a model",
        workload="some",
        says="something",
        expect=expect,
        tolerance=tolerance,
        test=test,
    )


def _found(*points: tuple[float, float, float]) -> Found:
    return Found(tuple(Point(f"w{place}", *point) for place, point in enumerate(points)))


# --- the shipped ledger -----------------------------------------------------------------------------------------------


def test_every_test_names_engines_and_workloads_that_its_experiment_has() -> None:
    assert unknown_names(load_claims()) == []


def test_the_ledger_has_the_claims_that_a_reader_looks_for() -> None:
    told = {claim.who.split(",")[0] for claim in load_claims()}
    assert told >= {"APEX", "NEO", "FlexGen", "TwinPilots"}
    versions = {claim.version for claim in load_claims() if claim.who == "APEX"}
    assert versions == {"v2", "v4"}


@pytest.mark.parametrize("name", catalogue_names())
def test_no_constant_carries_a_claims_value_as_its_source(name: str) -> None:
    """A constant may come from a claimant's measurements of a machine, never from what it says of a scheduler."""
    values = {f"{value:g}" for claim in load_claims() for value in claim.values}
    for path, source in load_hardware(name).sources.items():
        assert not re.search(r"speed-?up|tokens?/s|times vLLM|over vLLM|throughput of", source.text), (
            path,
            source.text,
        )
        if any(claimant in source.text for claimant in CLAIMANTS):
            numbers = set(re.findall(r"\d+(?:\.\d+)?", source.text))
            assert not numbers & values, (path, numbers & values)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_range_is_met_when_the_band_reaches_it_on_every_point() -> None:
    claim = _claim(Expect(range=(1.8, 2.0)))
    assert verdict(claim, _found((1.7, 1.6, 1.85), (1.9, 1.9, 1.9))).word is Word.CONSISTENT
    assert verdict(claim, _found((1.7, 1.6, 1.75), (1.9, 1.9, 1.9))).word is Word.INCONSISTENT
    assert verdict(claim, _found((2.5, 2.1, 2.9))).word is Word.INCONSISTENT


def test_up_to_is_met_when_the_best_point_reaches_it() -> None:
    claim = _claim(Expect(up_to=2.0))
    assert verdict(claim, _found((1.1, 1.0, 1.2), (1.9, 1.8, 2.0))).word is Word.CONSISTENT
    assert verdict(claim, _found((1.1, 1.0, 2.2), (1.9, 1.8, 1.95))).word is Word.INCONSISTENT
    assert verdict(claim, _found((3.0, 2.9, 3.1))).word is Word.INCONSISTENT


def test_at_least_and_at_most_are_of_every_point() -> None:
    points = _found((1.0, 0.9, 1.1), (2.0, 1.9, 2.1))
    assert verdict(_claim(Expect(at_least=1.1)), points).word is Word.CONSISTENT
    assert verdict(_claim(Expect(at_least=1.2)), points).word is Word.INCONSISTENT
    assert verdict(_claim(Expect(at_most=1.9)), points).word is Word.CONSISTENT
    assert verdict(_claim(Expect(at_most=1.8)), points).word is Word.INCONSISTENT


def test_what_print_rounds_away_is_no_difference() -> None:
    assert verdict(_claim(Expect(range=(2.0, 2.0)), 0.05), _found((1.91, 1.91, 1.91))).word is Word.CONSISTENT
    assert verdict(_claim(Expect(range=(2.0, 2.0)), 0.04), _found((1.91, 1.91, 1.91))).word is Word.INCONSISTENT


def test_only_a_measurement_reproduces() -> None:
    claim, found = _claim(Expect(at_least=1.0)), _found((1.5, 1.4, 1.6))
    assert verdict(claim, replace(found, label="measured")).word is Word.REPRODUCED
    assert verdict(claim, replace(_found((0.5, 0.4, 0.6)), label="measured")).word is Word.NOT_REPRODUCED
    assert verdict(claim, found).word is Word.CONSISTENT
    assert [verdict(claim, replace(found, label=label)).label for label in ("measured", "simulated")] == [
        "measured",
        "simulated",
    ]


def test_what_could_not_be_run_is_not_testable_and_says_why() -> None:
    found = verdict(_claim(Expect(at_least=1.0)), Found((), "it does not fit"))
    assert (found.word, found.why, found.label) == (Word.UNTESTABLE, "it does not fit", "")


def test_the_sentence_has_value_and_band() -> None:
    claim = _claim(Expect(range=(1.8, 2.0)))
    assert verdict(claim, _found((1.7, 1.6, 1.85))).why == "1.7 (1.6-1.85) on w0, which is within 1.8-2"
    both = verdict(claim, _found((1.7, 1.6, 1.85), (1.0, 1.0, 1.0))).why
    assert both == "1 of 2 points within 1.8-2: 1.7 (1.6-1.85) on w0, 1 (1-1) on w1"


# --- points -----------------------------------------------------------------------------------------------------------


def test_points_are_ratios_on_the_same_drawn_machine() -> None:
    claim = _claim(Expect(at_least=0.1))
    (point,) = found_for([claim], draws=2)["x"].points
    assert point.low <= point.value <= point.high
    assert point.low < point.high


def test_an_engine_against_itself_is_as_fast_on_every_machine() -> None:
    same = Trial(config="quickstart", ratio=Ratio(ours="apex", theirs=("apex",)))
    claim = _claim(Expect(at_least=0.1)).model_copy(update={"test": same})
    (point,) = found_for([claim], draws=2)["x"].points
    assert (point.low, point.value, point.high) == (1.0, 1.0, 1.0)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"expect": {"range": [1, 2], "up_to": 2}}, "give one of range, up_to"),
        ({"test": None}, "give test or untestable"),
        ({"toast": 1}, "toast"),
    ],
)
def test_a_claim_that_makes_no_sense_is_named(change: dict[str, object], why: str) -> None:
    raw = _claim(Expect(at_least=1.0)).model_dump(mode="json", exclude_none=True) | change
    text = yaml.safe_dump({"claims": [{key: value for key, value in raw.items() if value is not None}]})
    with pytest.raises(ConfigError, match=re.escape(why)):
        load_claims(text)


def test_two_claims_of_one_name() -> None:
    raw = _claim(Expect(at_least=1.0)).model_dump(mode="json", exclude_none=True)
    with pytest.raises(ConfigError, match="two claims are called x"):
        load_claims(yaml.safe_dump({"claims": [raw, raw]}))


def test_asking_for_a_claim_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no claim begins so"):
        chosen(load_claims(), ["apx_t4"])
    assert all(claim.id.startswith("apex_a10") for claim in chosen(load_claims(), ["apex_a10"]))


def test_a_test_that_names_what_is_not_there_is_found() -> None:
    test = Trial(config="quickstart", workloads=("poetry",), ratio=Ratio(ours="apx", theirs=("gpu_only",)))
    problems = unknown_names([_claim(Expect(at_least=1.0)).model_copy(update={"test": test})])
    assert problems == ["x: no engine apx", "x: no workload poetry"]


def test_the_ledger_is_shipped() -> None:
    assert Path("results/claims.yaml").is_file()
