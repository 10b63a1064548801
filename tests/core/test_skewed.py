"""Beliefs that are wrong on purpose: by their factors, by noise that recurs, and in nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from engines.core.cost import Work
from engines.core.placement import Part
from engines.core.roofline import Roofline
from engines.core.skewed import Skew, SkewedCosts, deviate, skewed
from engines.core.types import Move, Tier, Unit
from tests.core.worlds import MACHINE, MODEL
from tests.profile import laws

WORK = Work(tokens=9, decode_rows=2, decode_kv_tokens=300, prefill_tokens=7, prefill_kv_tokens=7, prefill_pairs=28)
RATES = replace(
    MACHINE, host_gemm_bytes_per_s=1e9, host_gemm_flops_per_s=1e10, disk_read_bytes_per_s=1e8, peer_bytes_per_s=1e9
)
TRUTH = Roofline(replace(MODEL, matrices=((8, 24), (8, 8), (8, 32), (32, 8))), RATES)
QKV = (Part.QKV,)
UP = Move(0, Tier.HOST, (0,), Tier.ACCEL, (0,), 64)


def _said(costs: Roofline | SkewedCosts) -> dict[str, list[float]]:
    """By the factor that each answer hangs on."""
    return {
        "host_attention": [costs.host_attention_s(3, 600), costs.host_prompts_s(WORK)],  # type: ignore[union-attr]
        "host_linear": [costs.host_matrix_s(QKV, 0.5, 3)],  # type: ignore[union-attr]
        "accel_attention": [costs.accel_attention_s(WORK)],
        "accel_linear": [
            costs.linear_s(9),
            costs.pre_attention_s(9),
            costs.post_attention_s(9),
            costs.head_s(3),
            costs.matrix_s(QKV, 0.5, 3),  # type: ignore[union-attr]
            costs.unpack_s(QKV, 0.5),  # type: ignore[union-attr]
        ],
        "links": [
            costs.move_s(UP),
            costs.rows_to_host_s(3),
            costs.rows_to_accel_s(3),
            costs.kv_to_host_s(3),
            costs.kv_to_accel_s(3),
            costs.rows_s(8, 3, Tier.HOST),  # type: ignore[union-attr]
            costs.weights_s(QKV, 0.5, Unit.H2D, packed=False),  # type: ignore[union-attr]
            costs.next_stage_s(3),  # type: ignore[union-attr]
        ],
        "disk": [
            costs.weights_s(QKV, 0.5, Unit.DISK, packed=False),  # type: ignore[union-attr]
            costs.kv_on_disk_s(3, writes=False),  # type: ignore[union-attr]
        ],
        "overhead": [costs.step_overhead_s],
    }


@pytest.mark.parametrize("kind", list(_said(TRUTH)))
def test_a_factor_is_on_its_own_kind_of_op_and_on_no_other(kind: str) -> None:
    believed = skewed(TRUTH, replace(Skew(), **{kind: 1.25}))  # type: ignore[arg-type]
    assert isinstance(believed, SkewedCosts)
    true_s, believed_s = _said(TRUTH), _said(believed)
    for other, seconds in true_s.items():
        factor = 1.25 if other == kind else 1.0
        assert believed_s[other] == pytest.approx([factor * each for each in seconds], rel=1e-12), other
    assert all(each > 0 for each in true_s[kind]) or kind == "overhead"


def test_without_skew_it_is_the_table_itself() -> None:
    assert skewed(TRUTH, Skew()) is TRUTH
    assert skewed(TRUTH, Skew(seed=7)) is TRUTH


def test_noise_recurs_with_its_seed_and_differs_with_another() -> None:
    once, again, other = (skewed(TRUTH, Skew(noise=0.2, seed=seed)) for seed in (1, 1, 2))
    assert once.linear_s(100) == again.linear_s(100)
    assert once.linear_s(100) != other.linear_s(100)
    ratios = {once.linear_s(rows) / TRUTH.linear_s(rows) for rows in (1, 2, 4, 64)}
    assert len(ratios) == 4
    assert once.linear_s(64) / TRUTH.linear_s(64) != once.head_s(64) / TRUTH.head_s(64)


def test_noise_is_as_large_as_it_says_and_leans_to_no_side() -> None:
    found = [deviate(seed, "linear", octave) for seed in range(200) for octave in range(10)]
    assert fmean(found) == pytest.approx(0.0, abs=0.1)
    assert pstdev(found) == pytest.approx(1.0, rel=0.1)


def test_between_two_powers_of_two_noise_goes_from_one_to_the_other() -> None:
    believed = skewed(TRUTH, Skew(noise=0.2, seed=3))
    ratios = [believed.linear_s(rows) / TRUTH.linear_s(rows) for rows in range(64, 129)]
    steps = [abs(b - a) for a, b in pairwise(ratios)]
    assert max(steps) < 0.05


def test_what_is_believed_of_units_alone_is_skewed_too() -> None:
    disturbed = Roofline(MODEL, MACHINE.slowed(1.5, 1.0, 1.0), alone=MACHINE)
    believed = skewed(disturbed, Skew(host_attention=2.0))
    assert believed.alone.host_attention_s(3, 600) == pytest.approx(2 * disturbed.alone.host_attention_s(3, 600))
    plain = skewed(TRUTH, Skew(links=2.0))
    assert plain.alone is plain


def test_a_table_that_knows_nothing_of_placed_weights_still_knows_nothing() -> None:
    profiled = laws.made_profile().table()
    believed = skewed(profiled, Skew(links=2.0))
    assert not hasattr(believed, "weights_s")
    assert believed.kv_to_host_s(16) == pytest.approx(2 * profiled.kv_to_host_s(16))
