"""Curves and surfaces: exact where they were measured, never falling, never negative, and sane far outside."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.core.curves import Curve, Surface, rising

seconds = st.floats(0, 1e3, allow_subnormal=False)
places = st.integers(0, 5000)
knots = st.dictionaries(places, seconds, min_size=1, max_size=12).map(lambda found: sorted(found.items()))
anywhere = st.floats(0, 1e6)


@st.composite
def cells(draw: st.DrawFn) -> dict[tuple[int, int], float]:
    """A ragged grid of noise: every x has some of the ys, not all."""
    xs = draw(st.lists(st.integers(1, 2000), min_size=1, max_size=5, unique=True))
    ys = draw(st.lists(st.integers(0, 2000), min_size=1, max_size=5, unique=True))
    return {(x, y): draw(seconds) for x in xs for y in draw(st.lists(st.sampled_from(ys), min_size=1, unique=True))}


@given(st.lists(seconds, min_size=1))
def test_rising_never_falls_and_keeps_the_mean(values: list[float]) -> None:
    risen = rising(values)
    assert all(above >= below - 1e-9 * (1 + below) for below, above in pairwise(risen))
    assert sum(risen) == pytest.approx(sum(values))
    assert min(values) - 1e-9 <= min(risen)
    assert max(risen) <= max(values) * (1 + 1e-9)


@given(st.lists(seconds, min_size=1))
def test_rising_leaves_alone_what_rises(values: list[float]) -> None:
    assert rising(sorted(values)) == sorted(values)


def test_rising_takes_means_where_values_fall() -> None:
    assert rising([1.0, 5.0, 3.0, 4.0, 9.0]) == [1.0, 4.0, 4.0, 4.0, 9.0]


@given(knots, anywhere, anywhere)
def test_a_curve_never_falls_and_is_never_negative(found: list[tuple[int, float]], a: float, b: float) -> None:
    curve = Curve.fit(found)
    low, high = curve(min(a, b)), curve(max(a, b))
    assert 0 <= low <= high * (1 + 1e-9) + 1e-9


@given(knots)
def test_a_curve_is_exact_where_measurements_rise(found: list[tuple[int, float]]) -> None:
    risen = list(zip((x for x, _ in found), sorted(value for _, value in found), strict=True))
    curve = Curve.fit(risen)
    assert [curve(x) for x, _ in risen] == pytest.approx([value for _, value in risen])


def test_a_curve_between_before_and_after_its_knots() -> None:
    curve = Curve.fit([(10, 1.0), (20, 2.0), (40, 8.0)])
    assert curve(15) == pytest.approx(1.5)
    assert curve(30) == pytest.approx(5.0)
    assert curve(0) == curve(9) == 1.0, "a call costs a call"
    assert curve(50) == pytest.approx(11.0), "the last slope goes on"
    assert Curve.fit([(10, 1.0)])(99) == 1.0


@given(cells(), anywhere, anywhere, anywhere)
def test_a_surface_never_falls_in_either_direction(
    found: dict[tuple[int, int], float], x: float, y: float, more: float
) -> None:
    surface = Surface(found)
    here = surface(x, y)
    assert here >= 0
    slack = 1e-6 * (1 + here)
    assert surface(x + more, y) >= here - slack
    assert surface(x, y + more) >= here - slack


@given(cells())
def test_a_surface_never_lies_below_a_rising_measurement(found: dict[tuple[int, int], float]) -> None:
    """Noise is taken out upwards: where a smaller batch took longer, a larger one is not believed to be cheaper."""
    by_x: dict[int, list[tuple[int, float]]] = {}
    for (x, y), value in sorted(found.items()):
        by_x.setdefault(x, []).append((y, value))
    for x, line in by_x.items():
        curve = Curve.fit(line)
        assert all(Surface(found)(x, y) >= curve(y) - 1e-9 * (1 + curve(y)) for y, _ in line)


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 5000),
    st.integers(1, 9000),
)
def test_a_bilinear_law_is_met_everywhere_beyond_its_first_knots(
    fixed: float, per_x: float, per_xy: float, x: int, y: int
) -> None:
    def law(x: int, y: int) -> float:
        return fixed + per_x * x + per_xy * x * y

    ragged = {(x, y): law(x, y) for x in (1, 7, 50, 300) for y in (1, 10, 200, 3000) if x * y <= 60_000}
    assert Surface(ragged)(x, y) == pytest.approx(law(x, y), rel=1e-6)


def test_lines_that_would_cross_far_out_do_not() -> None:
    """The longer line's slope is noise: without care a batch of 2 would be cheaper than one of 1 at y = 1000."""
    surface = Surface({(1, 1): 1.0, (1, 2): 2.0, (2, 1): 3.0, (2, 2): 3.0})
    assert surface(2, 1000) >= surface(1, 1000)
    assert surface(9, 1000) >= surface(2, 1000)
