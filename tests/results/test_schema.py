"""The format on disk: version 1 stays readable as it was written, and mistakes name the file and the key."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from results.errors import ResultsError
from results.operator_rows import OperatorRow
from results.schema import REQUESTS, SCHEMA_VERSION, STEPS, CellSummary, Label, Manifest, RunSummary, Status

# As version 1 was written. Never edit these: a later version that cannot read them has lost its users' results.
CELL_V1 = """{
  "schema_version": 1, "cell_id": "c1", "engine": "apex", "workload": "chat", "backend": "cpu", "label": "emulated",
  "repeat": 2, "status": "ok", "metrics": {"ttft_s_p50": 0.25, "preemptions": 3}, "resolved": {"cpu_threads": 7},
  "notes": ["clipped"], "unavailable": {"gpu_power_w": "no GPU"}
}"""
MANIFEST_V1 = """{
  "schema_version": 1, "name": "t4", "label": "simulated", "backend": "sim", "created_utc": "2030-01-02T03:04:05Z",
  "command": "harness run", "config": {"model": "m"}, "machine": {"cores": 2}, "versions": {"torch": "2.13.0"},
  "git_commit": "abc", "git_dirty": false, "seeds": [0, 1], "cells_planned": ["c1"]
}"""


def cell(**changes: object) -> dict[str, object]:
    data: dict[str, object] = json.loads(CELL_V1)
    return data | changes


def test_version_1_of_a_cell_reads() -> None:
    read = CellSummary.from_json(json.loads(CELL_V1))
    assert read == CellSummary(
        cell_id="c1",
        engine="apex",
        workload="chat",
        backend="cpu",
        label=Label.EMULATED,
        repeat=2,
        status=Status.OK,
        metrics={"ttft_s_p50": 0.25, "preemptions": 3.0},
        resolved={"cpu_threads": 7},
        notes=("clipped",),
        unavailable={"gpu_power_w": "no GPU"},
    )


def test_version_1_of_a_manifest_reads() -> None:
    read = Manifest.from_json(json.loads(MANIFEST_V1))
    assert (read.name, read.label, read.seeds, read.cells_planned) == ("t4", Label.SIMULATED, [0, 1], ("c1",))


def test_round_trips_through_json_text() -> None:
    original = CellSummary.from_json(cell(status="failed", error="out of memory"))
    run = RunSummary((original,), ("apex is faster",))
    assert RunSummary.from_json(json.loads(json.dumps(run.to_json()))) == run
    manifest = Manifest.from_json(json.loads(MANIFEST_V1))
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_operators_are_read_back_and_left_out_where_there_are_none() -> None:
    plain = CellSummary.from_json(cell())
    assert plain.operators == ()
    assert "operators" not in plain.to_json()
    rows = (OperatorRow("attention", "CPU", 12, 0.5, 2.5e12), OperatorRow("qkv", "GPU", 3, 1.0, 0.0))
    worked = replace(plain, operators=rows)
    assert CellSummary.from_json(json.loads(json.dumps(worked.to_json()))) == worked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": 3}, "operators[0]: unit: expected text, got a number"),
        ({"ops": 1.5}, "operators[0]: ops: expected a whole number, got a number"),
        ({"seconds": "1"}, "operators[0]: seconds: expected a number, got text"),
        ({"bytes": None}, "operators[0]: bytes: missing"),
    ],
)
def test_a_wrong_operator_is_located(change: dict[str, object], message: str) -> None:
    row = OperatorRow("attention", "CPU", 12, 0.5, 1.0).to_json() | change
    with pytest.raises(ResultsError) as caught:
        CellSummary.from_json(cell(operators=[row]))
    assert message in str(caught.value)


def test_a_manifest_needs_no_more_than_name_and_label() -> None:
    read = Manifest.from_json({"schema_version": 1, "name": "t4", "label": "measured", "git_commit": None})
    assert (read.command, read.config, read.git_commit) == ("", {}, None)


def test_a_command_may_be_a_list_of_arguments() -> None:
    read = Manifest.from_json({"schema_version": 1, "name": "t", "label": "measured", "command": ["run", "a b"]})
    assert read.command == "run 'a b'"


@pytest.mark.parametrize("key", ["schema_version", "cell_id", "engine", "label", "repeat", "status", "metrics"])
def test_a_missing_key_is_named_with_its_file(key: str) -> None:
    data = cell()
    del data[key]
    with pytest.raises(ResultsError, match=f"^some/summary.json: {key}: missing$"):
        CellSummary.from_json(data, "some/summary.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "fine"}, "status: 'fine' is none of ok, failed, refused, invalid"),
        ({"label": "guessed"}, "label: 'guessed' is none of measured, emulated, simulated"),
        ({"repeat": "1"}, "repeat: expected a whole number, got text"),
        ({"repeat": True}, "repeat: expected a whole number, got true or false"),
        ({"metrics": {"x": "1"}}, "metrics.x: expected a number, got text"),
        ({"metrics": []}, "metrics: expected an object, got a list"),
        ({"notes": [1]}, "notes[0]: expected text, got a number"),
        ({"schema_version": 2}, "2 is newer than this harness reads (1): upgrade the harness"),
        ({"schema_version": 0}, "0 is not a version"),
    ],
)
def test_wrong_values_say_what_was_expected(change: dict[str, object], message: str) -> None:
    with pytest.raises(ResultsError) as caught:
        CellSummary.from_json(cell(**change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cell_inside_a_run_summary_is_located() -> None:
    data = {"schema_version": 1, "cells": [cell(), cell(status="?")]}
    with pytest.raises(ResultsError, match=r"^summary.json: cells\[1\]: status: "):
        RunSummary.from_json(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_without_a_value_cannot_be_written(value: float) -> None:
    broken = CellSummary("c", "e", "w", "cpu", Label.EMULATED, 0, Status.OK, metrics={"ttft_s_p50": value})
    with pytest.raises(ResultsError, match="leave a metric out"):
        broken.to_json()


def test_columns_of_version_1() -> None:
    assert SCHEMA_VERSION == 1
    assert [(field.name, str(field.type), field.nullable) for field in REQUESTS] == [
        ("request_id", "int64", False),
        ("arrival_s", "double", False),
        ("dispatch_s", "double", False),
        ("first_scheduled_s", "double", True),
        ("first_token_s", "double", True),
        ("last_token_s", "double", True),
        ("prompt_tokens", "int32", False),
        ("output_tokens", "int32", False),
        ("asked_tokens", "int32", False),
        ("preemptions", "int32", False),
        ("preempted_s", "double", False),
        ("status", "string", False),
        ("reason", "string", False),
        ("tier", "string", False),
        ("warmup", "bool", False),
        ("token_times_s", "list<item: double>", False),
    ]
    assert " ".join(STEPS.names) == (
        "step started_s ended_s mode decode_rows prefill_rows prefill_tokens running waiting accel_blocks_used "
        "host_blocks_used gpu_busy_s cpu_busy_s h2d_busy_s d2h_busy_s disk_busy_s scheduler_s predicted_s "
        "ops overruns preempted moved_tokens found_tokens"
    )
    assert [field.name for field in STEPS if field.nullable] == ["predicted_s"]
