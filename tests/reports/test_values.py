"""How values are written."""

from __future__ import annotations

import pytest

from reports.values import (
    GAP,
    count,
    figure,
    flatten,
    listing,
    moment,
    percent,
    plain_scale,
    quantity,
    span,
    time_scale,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7.0, "7"),
        (0.5, "0.500"),
        (12.345, "12.3"),
        (123.4, "123"),
        (1234567.8, "1,234,568"),
        (4e-7, "4.00e-07"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("ttft_s_p50", 0.0412, "41.2 ms"),
        ("e2e_s", 12.5, "12.5 s"),
        ("scheduler_s", 0.00015, "150 µs"),
        ("output_tokens_per_s", 213.4, "213"),
        ("normalized_latency_s_per_token", 0.0321, "0.0321"),
        ("kv.accel_bytes", 15_676_630_630, "14.6 GiB"),
        ("kv_bytes_per_block", 512, "512 B"),
        ("link_bytes_per_s", 12 * 2**30, "12 GiB/s"),
        ("pinned", True, "yes"),
        ("dtype", "float16", "float16"),
        ("output", [50, 100], "50, 100"),
        ("anything", None, "–"),
        ("tier", "", "–"),
        ("layers", [], "–"),
    ],
)
def test_a_key_names_its_unit(key: str, value: object, text: str) -> None:
    assert quantity(key, value).replace(GAP, " ") == text


@pytest.mark.parametrize(
    ("values", "unit", "written"),
    [
        ([0.0412, 0.398], "ms", ["41.2", "398.0"]),
        ([12.0, 0.5], "s", ["12.00", "0.50"]),
        ([1412.0, 2.5], "s", ["1,412", "2"]),
        ([2e-4], "µs", ["200"]),
        ([], "ms", []),
        ([0.0], "ms", ["0"]),
    ],
)
def test_a_column_has_one_unit(values: list[float], unit: str, written: list[str]) -> None:
    scale = time_scale(values)
    assert scale.unit == unit
    assert [scale.write(value) for value in values] == written


def test_a_unit_can_be_given() -> None:
    scale = time_scale([0.0412], "s")
    assert (scale.unit, scale.write(0.0412)) == ("s", "0.041")


def test_a_span_is_written_once_where_its_ends_are_alike() -> None:
    assert (span("3", "7"), span("3", "3")) == ("3–7", "3")


def test_whole_numbers_have_no_decimals() -> None:
    assert plain_scale([3.0, 1200.0]).write(1200.0) == "1,200"
    assert plain_scale([3.0, 2.5]).write(3.0) == "3.00"


def test_nested_values_get_dotted_keys() -> None:
    assert list(flatten({"a": {"b": 1, "c": {}}, "d": [2]})) == [("a.b", 1), ("a.c", {}), ("d", [2])]


def test_small_words() -> None:
    assert [listing(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert (count(1, "pair"), count(1200, "pair")) == ("1 pair", "1,200 pairs")
    assert percent(0.3127, 1) == f"31.3{GAP}%"
    assert moment("2030-01-02T03:04:05Z") == "2030-01-02 03:04:05 UTC"
    assert moment("yesterday") == "yesterday"
