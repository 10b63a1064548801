"""Where values come from and which source wins; the shipped experiments; byte sizes; the JSON schema."""

from __future__ import annotations

import pytest

from harness.config import Experiment, config_names, json_schema, load_experiment
from harness.errors import ConfigError
from harness.experiment import Budget
from harness.sizes import format_bytes, parse_bytes
from tests.harness.conftest import Write


@pytest.mark.parametrize("name", config_names())
def test_shipped_experiments_are_valid(name: str) -> None:
    assert load_experiment(name, environment={}).name == name
    assert load_experiment(f"{name}.yaml", environment={}).name == name


def test_precedence_is_defaults_file_environment_set(write: Write) -> None:
    config = str(write(budget={"max_batch": 2, "accel_kv_tokens": 512}))
    assert load_experiment(config, environment={}).budget.max_batch == 2
    assert load_experiment(config, environment={}).budget.max_batch_tokens == 2048
    environment = {"HARNESS_SET_budget__max_batch": "3", "OTHER": "x"}
    assert load_experiment(config, environment=environment).budget.max_batch == 3
    assert load_experiment(config, ["budget.max_batch=4"], environment).budget.max_batch == 4
    assert load_experiment(config, ["budget.max_batch=4", "budget.max_batch=5"], environment).budget.max_batch == 5


def test_set_reaches_into_lists_and_makes_sections(write: Write) -> None:
    sets = [
        "engines.0.admit=chunk",
        "engines.1={kind: gpu_only, name: second}",
        "workloads.0.batch=[1, 2]",
        "slo.ttft_s=2",
        "budget.accel_memory=14.6GiB",
        "measure.time_limit_s=1e2",
    ]
    experiment = load_experiment(str(write()), sets, {})
    assert [(engine.name, engine.options) for engine in experiment.engines] == [
        ("gpu_only", {"admit": "chunk"}),
        ("second", {}),
    ]
    assert experiment.workloads[0].options["batch"] == [1, 2]
    assert experiment.slo is not None
    assert experiment.slo.ttft_s == 2
    assert experiment.budget.accel_memory == 15676630630
    assert experiment.measure.time_limit_s == 100


def test_a_mistake_names_its_source(write: Write) -> None:
    environment = {"HARNESS_SET_budget__max_bach": "3"}
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(write()), ["measure.seed=x"], environment)
    assert [line.split(": ")[:2] for line in caught.value.problems] == [
        ["HARNESS_SET_budget__max_bach", "budget.max_bach"],
        ["--set", "measure.seed"],
    ]


def test_a_resolved_experiment_can_be_read_again(write: Write) -> None:
    experiment = load_experiment(str(write(slo={"tpot_s": 0.1})), ["engines.0.admit=chunk"], {})
    assert Experiment.model_validate(experiment.model_dump(mode="json")) == experiment


def test_any_budget_may_be_auto(write: Write) -> None:
    budget = load_experiment(str(write(budget=dict.fromkeys(Budget.model_fields, "auto"))), environment={}).budget
    assert budget == Budget()
    assert (budget.accel_memory, budget.max_batch) == ("auto", 256)


def test_native_emulation_needs_no_machine(write: Write) -> None:
    changes = {"backend": "cpu", "hardware": None, "emulation": {"mode": "native"}}
    assert load_experiment(str(write(**changes)), environment={}).hardware is None


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Experiment.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["engines"]["items"]["anyOf"][0] == {"type": "string"}
    assert schema["$defs"]["EngineChoice"]["required"] == ["kind"]
    assert schema["$defs"]["Budget"]["properties"]["accel_memory"]["default"] == "auto"


@pytest.mark.parametrize(
    ("text", "size"),
    [(1024, 1024), ("1024", 1024), ("1KiB", 1024), ("1.5 GB", 1_500_000_000), ("2gib", 2**31), ("1e3 MB", 10**9)],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", "1 parsec", None, True, [], "nan", "1e999", 0])
def test_sizes_that_are_none(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_bytes(text)


def test_sizes_as_text() -> None:
    assert [format_bytes(size) for size in (0, 1023, 1024, 15 * 2**30, 2**43)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "15.0 GiB",
        "8.0 TiB",
    ]
