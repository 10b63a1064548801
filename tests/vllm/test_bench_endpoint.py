"""How `harness bench endpoint` pairs two clients: requests of the same moments only."""

from __future__ import annotations

import pytest

from harness.bench_endpoint import Seen, taken_together
from harness.errors import UnfitEnvironmentError


def sent(first_s: float, count: int, ttft_s: float, gap_s: float) -> list[Seen]:
    return [Seen(first_s + 2.0 * index, ttft_s, (gap_s,) * 3) for index in range(count)]


def test_what_only_one_client_lived_through_does_not_count() -> None:
    """The machine was slow before the second client began and after the first had ended."""
    ours = [*sent(100.0, 3, 9.0, 9.0), *sent(106.0, 10, 0.1, 0.02)]
    theirs = [*sent(105.5, 10, 0.2, 0.04), *sent(126.0, 3, 9.0, 9.0)]
    mine, other = taken_together(ours, theirs)
    assert (mine.ttft_mean, mine.ttft_median, mine.itl_mean) == pytest.approx((0.1, 0.1, 0.02))
    assert (other.ttft_mean, other.ttft_median, other.itl_median) == pytest.approx((0.2, 0.2, 0.04))


def test_clients_that_missed_each_other_are_no_pair() -> None:
    with pytest.raises(UnfitEnvironmentError, match="same time"):
        taken_together(sent(0.0, 10, 0.1, 0.02), sent(15.0, 10, 0.1, 0.02))
