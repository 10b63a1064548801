"""Figures on drawn machines: bands hold the nominal value, and engines are compared on the same machine."""

from __future__ import annotations

import pytest

from results.draws import Draws, ratio_band
from results.errors import ResultsError

RATE = "output_tokens_per_s"


def test_a_band_holds_the_nominal_value() -> None:
    draws = Draws(("gpu.x",), {RATE: (10.0, 12.0, None)})
    assert draws.band(RATE, 11.0) == (10.0, 12.0)
    assert draws.band(RATE, 13.0) == (10.0, 13.0)
    assert draws.band("other", 1.0) is None
    assert Draws((), {RATE: (None,)}).band(RATE, 1.0) is None


def test_a_ratio_is_taken_draw_by_draw() -> None:
    """Both twice as fast on one machine: what is uncertain of the machine alone leaves the ratio alone."""
    ours, theirs = Draws((), {RATE: (10.0, 20.0, None)}), Draws((), {RATE: (5.0, 10.0, 7.0)})
    assert ratio_band(ours, theirs, RATE, 2.0) == (2.0, 2.0)


def test_json_gives_back_what_was_written() -> None:
    draws = Draws(("gpu.x",), {RATE: (10.0, None)})
    assert Draws.from_json(draws.to_json(), "here") == draws


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(ResultsError, match=r"here\.values\.output_tokens_per_s"):
        Draws.from_json({"constants": [], "values": {RATE: ["fast"]}}, "here")
