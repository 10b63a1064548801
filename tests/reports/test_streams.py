"""Distributions and timelines from streams: near enough to the exact values, and bounded whatever the length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.latencies import Distribution, Latencies
from reports.page import write_report
from reports.timelines import BINS, read_timeline
from results.store import RequestWriter, StepWriter, read_requests
from tests.results.run_folders import Shape, build, request_columns, step_columns


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentiles_are_within_a_bin_of_the_exact_ones(share: float) -> None:
    values = np.random.default_rng(0).gamma(2.0, 0.3, 20_000)
    distribution = Distribution()
    for part in np.array_split(values, 7):
        distribution.add(part)
    curve = distribution.curve(points=5000)
    assert curve is not None
    assert curve.percentile(share) == pytest.approx(np.quantile(values, share), rel=0.006)


def test_curves_are_thinned_and_keep_their_ends() -> None:
    distribution = Distribution()
    distribution.add(np.geomspace(1e-4, 100, 50_000))
    curve = distribution.curve()
    assert curve is not None
    assert len(curve.seconds) <= 300
    assert curve.seconds[0] == pytest.approx(1e-4, rel=0.01)
    assert curve.seconds[-1] == pytest.approx(100, rel=0.01)
    assert curve.share[-1] == 1.0


def test_odd_times_are_counted_or_left_out() -> None:
    distribution = Distribution()
    assert distribution.curve() is None
    distribution.add(np.array([0.0, -1.0, 1e9, np.nan, np.inf]))
    assert distribution.total == 3


def test_latencies_follow_their_definitions(tmp_path: Path) -> None:
    """Three requests by hand: one is warm-up, one never finished, so that one counts."""
    columns = request_columns(np.random.default_rng(0), Shape(requests=3, tokens=3), 1.0)
    columns |= {
        "arrival_s": [0.0, 1.0, 2.0],
        "first_token_s": [1.0, 3.0, None],
        "last_token_s": [9.0, 7.0, None],
        "token_times_s": [[1.0, 2.0, 9.0], [3.0, 4.0, 7.0], []],
        "status": ["finished", "finished", "aborted"],
        "reason": ["", "", "client left"],
        "warmup": [True, False, False],
    }
    with RequestWriter(tmp_path) as writer:
        writer.append_columns(columns)
    seen = Latencies()
    seen.add_cell(tmp_path)
    assert seen.requests == 3
    assert dict(seen.unfinished) == {("aborted", "client left"): 1}
    assert seconds(seen.ttft) == pytest.approx([2.0], rel=0.006)
    assert seconds(seen.tpot) == pytest.approx([2.0], rel=0.006)
    assert seconds(seen.itl) == pytest.approx([1.0, 3.0], rel=0.006)


def seconds(distribution: Distribution) -> list[float]:
    curve = distribution.curve()
    return [] if curve is None else [float(value) for value in curve.seconds]


def test_gaps_never_join_two_requests(tmp_path: Path) -> None:
    with RequestWriter(tmp_path) as writer:
        writer.append_columns(request_columns(np.random.default_rng(0), Shape(requests=10, tokens=5), 1.0))
    seen = Latencies()
    seen.add_cell(tmp_path)
    assert seen.itl.total == 8 * 4  # two of the ten are warm-up


def test_busy_shares_add_up(tmp_path: Path) -> None:
    columns = step_columns(np.random.default_rng(0), Shape(steps=10), "apex", 1.0)
    columns |= {
        "started_s": np.arange(10.0),
        "ended_s": np.arange(10.0) + 0.8,
        "gpu_busy_s": np.full(10, 0.6),
        "cpu_busy_s": np.full(10, 0.9),
    }
    with StepWriter(tmp_path) as writer:
        writer.append_columns(columns)
    timeline = read_timeline(tmp_path)
    assert timeline is not None
    busy = timeline.busy
    assert [busy.wall_s, busy.in_steps_s] == pytest.approx([9.8, 8.0])
    assert busy.share("gpu") == pytest.approx((6 / 9.8, 2 / 9.8, 1.8 / 9.8))
    # Work that reaches over the end of its step is never a negative bubble.
    assert busy.share("cpu") == pytest.approx((9 / 9.8, 0.0, 0.8 / 9.8))
    assert (busy + busy).share("gpu") == pytest.approx(busy.share("gpu"))


def test_a_series_is_binned_and_holds_its_last_value(tmp_path: Path) -> None:
    columns = step_columns(np.random.default_rng(0), Shape(steps=3), "apex", 1.0)
    columns |= {
        "started_s": [0.0, 1.0, 9.0],
        "ended_s": [1.0, 2.0, 10.0],
        "running": np.array([4, 8, 2], dtype=np.int32),
    }
    with StepWriter(tmp_path) as writer:
        writer.append_columns(columns)
    timeline = read_timeline(tmp_path)
    assert timeline is not None
    running = timeline.values["running"]
    assert len(running) == BINS
    assert (running[0], running[BINS // 2], running[-1]) == (0.0, 8.0, 2.0)
    assert timeline.time_s[-1] == pytest.approx(10.0, rel=0.01)


def test_no_steps_no_timeline(tmp_path: Path) -> None:
    StepWriter(tmp_path).close()
    assert read_timeline(tmp_path) is None


def test_a_hundred_thousand_requests_make_a_small_page(tmp_path: Path) -> None:
    """The size is what a mail takes; the requests go through in batches, so memory does not grow with them."""
    shape = Shape(engines=("neo", "apex"), workloads=("chat",), repeats=1, requests=50_000, tokens=10, steps=100_000)
    path = build(tmp_path, shape)
    assert len(read_requests(path / "cells" / "e0-w0-r0", ["request_id"])) == 50_000
    assert write_report(path).stat().st_size < 1_000_000
