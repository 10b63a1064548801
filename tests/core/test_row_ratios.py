"""Ratios by rows: exact where measured, flat beyond, never making more rows cheaper; absent, nothing changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.core.placement import Part
from engines.core.products import in_tiles
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


MATRICES = ((64, 192), (64, 64), (64, 256), (128, 64))
SHAPED = replace(
    MODEL,
    matrices=MATRICES,
    pre_parameters=64 * 192,
    post_parameters=64 * 64 + 64 * 256 + 128 * 64,
    head_parameters=64 * 1000,
)


def test_a_layer_is_its_products_each_with_a_launch_and_ratios_of_its_own() -> None:
    plain = Roofline(SHAPED, MACHINE)
    ratios = replace(MACHINE, gemm_by_shape=(((64, 256), ((1, 2.0), (10**6, 2.0))),))
    own = Roofline(SHAPED, ratios)
    fixed_s = MACHINE.gemm_fixed_s
    one_s = {part: plain.matrix_s((part,), 1.0, 100) for part in Part}
    assert plain.linear_s(100) == pytest.approx(sum(one_s.values()))
    assert plain.linear_s(100) == pytest.approx(plain.pre_attention_s(100) + plain.post_attention_s(100))
    assert own.linear_s(100) == pytest.approx(plain.linear_s(100) + one_s[Part.UP] - fixed_s)
    assert own.pre_attention_s(100) == plain.pre_attention_s(100)
    assert own.head_s(100) == plain.head_s(100)
    head = Roofline(SHAPED, replace(MACHINE, gemm_by_shape=(((64, 1000), ((1, 2.0), (9, 2.0))),)))
    assert head.head_s(5) - fixed_s == pytest.approx(2 * (plain.head_s(5) - fixed_s))


def test_rows_are_computed_in_whole_tiles_beyond_the_first() -> None:
    tiled, plain = Roofline(SHAPED, replace(MACHINE, gemm_tile_rows=64)), Roofline(SHAPED, MACHINE)
    assert [in_tiles(rows, 64) for rows in (1, 63, 64, 65, 128, 129)] == [1, 63, 64, 128, 128, 192]
    assert tiled.linear_s(65) == tiled.linear_s(128) == plain.linear_s(128)
    assert tiled.linear_s(33) == plain.linear_s(33)


def test_small_ops_come_between_products_and_are_shared_out_with_them() -> None:
    plain = Roofline(SHAPED, MACHINE)
    whole = Roofline(SHAPED, replace(MACHINE, small_op_fixed_s=1e-6, small_op_bytes_per_s=1e9))
    values = 2 * 4 * 64 + (64 + 192) + (256 + 128)  # two norms, queries and keys, the activation
    added_s = 4e-6 + 100 * values * MODEL.bytes_per_parameter / 1e9
    assert whole.linear_s(100) - plain.linear_s(100) == pytest.approx(added_s)
    assert whole.pre_attention_s(100) + whole.post_attention_s(100) == pytest.approx(whole.linear_s(100))
    assert whole.head_s(100) == plain.head_s(100)
    half_s, half_of_plain_s = (costs.matrix_s((Part.QKV,), 0.5, 100) for costs in (whole, plain))
    one_s, one_of_plain_s = (costs.matrix_s((Part.QKV,), 1.0, 100) for costs in (whole, plain))
    assert half_s - half_of_plain_s == pytest.approx((one_s - one_of_plain_s) / 2)
    assert whole.linear_s(0) == whole.matrix_s((Part.QKV,), 1.0, 0) == 0.0


def roofline(machine: MachineRates) -> Roofline:
    return Roofline(MODEL, machine)
