"""Ratios by rows: exact where measured, flat beyond, never making more rows cheaper; absent, nothing changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.core.roofline import MachineRates, Roofline
from engines.core.row_ratios import RowRatios
from tests.core.worlds import MACHINE, MODEL

FORMULA = 1e-4, 1e-6, 2.2  # memory, arithmetic per row, exponent


def formula(rows: float) -> float:
    memory_s, each_s, p = FORMULA
    return float((memory_s**p + (each_s * rows) ** p) ** (1 / p))


def test_exact_where_measured_and_flat_beyond() -> None:
    ratio = RowRatios([(8, 1.2), (128, 1.5), (1024, 0.9)], formula)
    assert [ratio(rows) for rows in (1, 8, 128, 1024, 5000)] == pytest.approx([1.2, 1.2, 1.5, 0.9, 0.9])


def test_between_two_points_it_is_interpolated_over_log_rows() -> None:
    ratio = RowRatios([(16, 1.0), (256, 4.0)], formula)
    assert ratio(64) == pytest.approx(2.0)


def test_a_ratio_that_would_make_more_rows_cheaper_is_shared() -> None:
    ratio = RowRatios([(1, 1.5), (2, 1.0), (4, 2.0)], formula)
    assert ratio(1) * formula(1) == pytest.approx(ratio(2) * formula(2))
    assert ratio(4) == pytest.approx(2.0)


@given(
    st.dictionaries(st.integers(1, 5000), st.floats(0.3, 3.0), min_size=1, max_size=16),
    st.lists(st.integers(1, 9000), min_size=2, max_size=50, unique=True),
)
def test_more_rows_never_take_less(ratios: dict[int, float], rows: list[int]) -> None:
    ratio = RowRatios(sorted(ratios.items()), formula)
    seconds = [ratio(count) * formula(count) for count in sorted([*rows, *ratios])]
    assert all(b >= a * (1 - 1e-9) for a, b in pairwise(seconds))


def test_products_are_corrected_and_their_fixed_part_is_not() -> None:
    plain, half = roofline(MACHINE), roofline(replace(MACHINE, gemm_by_tokens=((1, 0.5), (10**6, 0.5))))
    fixed_s = MACHINE.gemm_fixed_s
    assert fixed_s > 0
    assert half.linear_s(100) - fixed_s == pytest.approx((plain.linear_s(100) - fixed_s) / 2)
    assert half.head_s(7) - fixed_s == pytest.approx((plain.head_s(7) - fixed_s) / 2)


def roofline(machine: MachineRates) -> Roofline:
    return Roofline(MODEL, machine)
