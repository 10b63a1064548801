"""Beside simulated numbers stands how far their cost model is from measured ops, whether or not the tables are here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines.hardware import catalogue_names
from harness.cost_accuracy import FORMULA, HALF, OTHERS, accuracy, cost_model_error
from harness.experiment import Experiment
from harness.opening import manifest_of
from reports.sections import overview, provenance
from results.query import load_run
from results.schema import Label, Manifest
from results.store import RunFolder


def test_a_machine_with_a_table_says_what_its_own_was_missed_by() -> None:
    for machine, kinds in accuracy().items():
        assert machine in catalogue_names()
        assert kinds.keys() == {HALF, FORMULA, OTHERS}
        said = cost_model_error(machine)
        assert f"{kinds[HALF]['layer_mean']:.1%} per layer" in said
        assert f"{kinds[FORMULA]['op_mean']:.1%} per op" in said


def test_a_machine_without_one_says_what_others_were_missed_by() -> None:
    means = [kinds[OTHERS]["layer_mean"] for kinds in accuracy().values()]
    for machine in {*catalogue_names()} - accuracy().keys():
        assert f"of {machine} against" in cost_model_error(machine)
        assert f"{min(means):.0%} to {max(means):.0%} per layer" in cost_model_error(machine)
    assert "not in the catalogue" in cost_model_error("/somewhere/mine.yaml")


@pytest.mark.parametrize(
    ("changes", "backend", "said"),
    [
        ({}, "sim", "The cost model of a100"),
        ({"hardware": "t4_g4dn_4xlarge"}, "sim", "No measured ops"),
        ({"backend": "cpu"}, "cpu", "The cost model of a100"),
        ({"backend": "cpu", "emulation": {"mode": "native"}}, "cpu", ""),
        ({"backend": "auto"}, "cuda", ""),
    ],
)
def test_a_run_s_manifest_says_it_where_a_machine_is_modelled(
    changes: dict[str, object], backend: str, said: str
) -> None:
    manifest = manifest_of(_experiment(**changes), [], backend, "simulated", "")
    assert manifest.cost_model_error.startswith(said) if said else manifest.cost_model_error == ""
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_report_says_it_where_the_label_is_explained_and_where_figures_come_from(tmp_path: Path) -> None:
    manifest = Manifest("said", Label.SIMULATED, "sim", cost_model_error=cost_model_error("h100"))
    for given, shown in ((manifest, True), (replace(manifest, name="unsaid", cost_model_error=""), False)):
        folder = RunFolder.create(tmp_path, given.name)
        folder.write_manifest(given)
        run = load_run(folder.path)
        assert ("The cost model of h100 misses" in overview.head(run)) is shown
        assert ("The cost model of h100 misses" in provenance.build(run).body) is shown


def _experiment(**changes: object) -> Experiment:
    told = {
        "schema_version": 1,
        "name": "told",
        "backend": "sim",
        "hardware": "a100",
        "model": "llama-2-7b",
        "dtype": "float16",
        "engines": ["gpu_only"],
        "workloads": [{"kind": "long_output", "prompt": 10, "output": 8, "requests": 6}],
    }
    return Experiment.model_validate(told | changes)
