"""Parquet tables of a cell: bounded memory while writing and reading, strict columns, no half files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.errors import ResultsError
from results.schema import REQUESTS
from results.store import (
    RequestWriter,
    SampleWriter,
    StepWriter,
    iter_requests,
    iter_steps,
    read_requests,
    read_samples,
    read_steps,
)
from results.writers import Column
from tests.results.run_folders import Shape, request_columns, step_columns


def columns(count: int = 5) -> dict[str, Column]:
    return request_columns(np.random.default_rng(0), Shape(requests=count, tokens=3), 1.0)


def rows(count: int = 5) -> list[dict[str, object]]:
    batch = pa.RecordBatch.from_pydict(columns(count), schema=REQUESTS)
    return list(batch.to_pylist())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_and_columns_give_the_same_table(tmp_path: Path) -> None:
    with RequestWriter(tmp_path / "a") as writer:
        writer.append_rows(rows())
    with RequestWriter(tmp_path / "b") as writer:
        writer.append_columns(columns())
    one, other = (pq.read_table(tmp_path / name / "requests.parquet") for name in "ab")
    assert one.equals(other)
    assert one.schema.equals(REQUESTS)


def test_rows_and_columns_keep_their_order_when_mixed(tmp_path: Path) -> None:
    with RequestWriter(tmp_path) as writer:
        writer.append(rows(1)[0])
        writer.append_columns(columns(2))
        writer.append(rows(1)[0])
    assert read_requests(tmp_path, ["request_id"])["request_id"].tolist() == [0, 0, 1, 0]


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    with RequestWriter(tmp_path, buffer_rows=100) as writer:
        writer.append_columns(columns(1050))
    parquet = pq.ParquetFile(tmp_path / "requests.parquet")
    assert max(parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)) == 100
    parquet.close()


def test_memory_while_writing_is_bounded(tmp_path: Path) -> None:
    writer = RequestWriter(tmp_path, buffer_rows=10)
    for row in rows(95):
        writer.append(row)
        assert len(writer._rows) + writer._batched_rows < 10
    writer.close()
    assert len(read_requests(tmp_path)) == 95


def test_nothing_has_its_name_before_close_and_close_is_idempotent(tmp_path: Path) -> None:
    writer = RequestWriter(tmp_path, buffer_rows=2)
    writer.append_columns(columns(5))
    assert all(name.startswith(".") and name.endswith(".tmp") for name in names(tmp_path))
    writer.close()
    writer.close()
    writer.discard()
    assert names(tmp_path) == ["requests.parquet"]
    with pytest.raises(ResultsError, match="after it was closed"):
        writer.append(rows(1)[0])


def test_an_exception_discards_the_file(tmp_path: Path) -> None:
    def fail() -> None:
        with RequestWriter(tmp_path, buffer_rows=2) as writer:
            writer.append_columns(columns(5))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_a_crash_between_write_and_rename_leaves_no_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(source: object, target: object) -> None:
        raise OSError("the machine stopped here")

    writer = RequestWriter(tmp_path)
    writer.append_columns(columns())
    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(ResultsError, match="cannot be written: the machine stopped here"):
        writer.close()
    assert names(tmp_path) == []


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    RequestWriter(tmp_path).close()
    assert list(read_requests(tmp_path).columns) == REQUESTS.names


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in rows(1)[0].items() if key != name}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (without("prompt_tokens"), "column 'prompt_tokens' is missing"),
        (rows(1)[0] | {"surprise": 1}, "unknown column 'surprise'"),
        (rows(1)[0] | {"preemptions": 2**40}, "a value does not fit its column"),
        (rows(1)[0] | {"tier": 3}, "a value does not fit its column"),
        (rows(1)[0] | {"arrival_s": None}, "column 'arrival_s' has no value in 1 row"),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    writer = RequestWriter(tmp_path, buffer_rows=1)
    with pytest.raises(ResultsError, match=message):
        writer.append(row)
    writer.discard()
    assert not (tmp_path / "requests.parquet").exists()


def test_optional_columns_may_be_left_out(tmp_path: Path) -> None:
    with RequestWriter(tmp_path) as writer:
        writer.append(without("first_token_s"))
        writer.append_columns({key: value for key, value in columns(2).items() if key != "first_token_s"})
    assert read_requests(tmp_path)["first_token_s"].isna().sum() == 3


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="different lengths"), RequestWriter(tmp_path) as writer:
        writer.append_columns(columns(2) | {"arrival_s": [0.0]})


def test_samples_take_the_columns_they_are_given(tmp_path: Path) -> None:
    with SampleWriter(tmp_path) as writer:
        writer.append({"time_s": 0, "gpu_power_w": None, "state": "idle", "throttled": False})
        writer.append({"time_s": 0.1, "gpu_power_w": 71, "state": "busy", "throttled": True})
    frame = read_samples(tmp_path)
    assert frame["gpu_power_w"].dropna().tolist() == [71.0]
    assert frame["state"].tolist() == ["idle", "busy"]
    assert frame["throttled"].tolist() == [False, True]


def test_a_sample_column_that_comes_too_late_is_refused(tmp_path: Path) -> None:
    with SampleWriter(tmp_path, buffer_rows=1) as writer:
        writer.append({"time_s": 0.0, "a": 1})
        with pytest.raises(ResultsError, match="unknown column 'late'"):
            writer.append({"time_s": 0.1, "a": 1, "late": 2})


def test_declared_sample_columns_may_stay_empty(tmp_path: Path) -> None:
    with SampleWriter(tmp_path, columns=["gpu_power_w"]) as writer:
        writer.append({"time_s": 0.0})
    assert read_samples(tmp_path)["gpu_power_w"].isna().all()


def test_samples_without_a_row_still_make_a_table(tmp_path: Path) -> None:
    SampleWriter(tmp_path).close()
    assert list(read_samples(tmp_path).columns) == ["time_s"]


def test_tables_are_read_in_batches(tmp_path: Path) -> None:
    with RequestWriter(tmp_path) as writer:
        writer.append_columns(columns(100))
    batches = list(iter_requests(tmp_path, ["request_id", "tier"], batch_rows=30))
    assert [batch.num_rows for batch in batches] == [30, 30, 30, 10]
    assert batches[0].schema.names == ["request_id", "tier"]


def test_steps_are_read_whole_and_in_batches(tmp_path: Path) -> None:
    with StepWriter(tmp_path) as writer:
        writer.append_columns(step_columns(np.random.default_rng(0), Shape(steps=50), "apex", 1.0))
    assert read_steps(tmp_path)["step"].tolist() == list(range(50))
    assert sum(batch.num_rows for batch in iter_steps(tmp_path, batch_rows=20)) == 50


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def from_the_future(path: Path) -> None:
    table = pq.read_table(path).replace_schema_metadata({"schema_version": "2"})
    pq.write_table(table, path)


def lose_a_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["tier"]), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "no such file"),
        (cut, "not readable as parquet"),
        (from_the_future, "2 is newer than this harness reads"),
        (lose_a_column, "column 'tier' is missing"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_of_one_line(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    with RequestWriter(tmp_path) as writer:
        writer.append_columns(columns())
    damage(tmp_path / "requests.parquet")
    with pytest.raises(ResultsError, match=message) as caught:
        list(iter_requests(tmp_path, ["tier"]))
    assert "\n" not in str(caught.value)
