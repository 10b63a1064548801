"""What the steps tell about the machine, against figures worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.collectors.steps import OpSpan, StepObservation, busy_seconds, step_columns, union_of
from harness.metrics import aggregate
from tests.metrics.cells import request, step


def test_shares_of_the_serving_time_add_up() -> None:
    # One request from 0 to 4 and one from 6 to 10; the GPU works 2 + 3 s of 10, nothing is asked for from 4 to 6.
    requests = [request(0, 0.0, [2.0, 4.0]), request(1, 6.0, [8.0, 10.0])]
    steps = [step(0, 0.5, 4.0, gpu_busy_s=2.0, cpu_busy_s=1.0), step(1, 6.0, 10.0, gpu_busy_s=3.0, h2d_busy_s=0.5)]
    metrics = aggregate(requests, steps).metrics
    assert metrics["gpu_busy_share"] == pytest.approx(0.5)
    assert metrics["cpu_busy_share"] == pytest.approx(0.1)
    assert metrics["h2d_busy_share"] == pytest.approx(0.05)
    assert metrics["d2h_busy_share"] == metrics["disk_busy_share"] == 0
    assert metrics["idle_share"] == pytest.approx(0.2)
    assert metrics["bubble_share"] == pytest.approx(0.3)
    assert metrics["gpu_busy_share"] + metrics["bubble_share"] + metrics["idle_share"] == pytest.approx(1)


def test_pending_time_is_the_union_over_batches() -> None:
    requests = [request(0, 0.0, [4.0]), request(1, 2.0, [6.0]), request(2, 8.0, [10.0]), request(3, 1.0, [3.0])]
    assert aggregate(requests, [step(0, 0.0, 10.0)]).metrics["idle_share"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [(5.0, 0.0), (3.0, 1.0), (4.0, 0.5), (7.0, 0.0), (2.9, 1.0)],  # GPU 3 and CPU 2: serial 5, perfect 3
)
def test_overlap_efficiency_of_a_step(duration_s: float, expected: float) -> None:
    metrics = aggregate([], [step(0, 0.0, duration_s, gpu_busy_s=3.0, cpu_busy_s=2.0)]).metrics
    assert metrics["overlap_efficiency"] == pytest.approx(expected)


def test_overlap_is_weighted_by_what_could_be_hidden() -> None:
    steps = [
        step(0, 0.0, 5.0, gpu_busy_s=3.0, cpu_busy_s=2.0),  # 2 s could be hidden, none was
        step(1, 5.0, 11.0, gpu_busy_s=6.0, h2d_busy_s=6.0),  # 6 s could be, all were
        step(2, 11.0, 12.0, gpu_busy_s=1.0),  # nothing to hide
    ]
    assert aggregate([], steps).metrics["overlap_efficiency"] == pytest.approx(6 / 8)


def test_sums_means_and_peaks() -> None:
    steps = [
        step(
            0,
            0.0,
            1.0,
            running=4,
            decode_rows=2,
            waiting=3,
            accel_blocks_used=10,
            scheduler_s=0.001,
            ops=90,
            overruns=1,
        ),
        step(
            1,
            1.0,
            4.0,
            running=8,
            decode_rows=8,
            host_blocks_used=7,
            scheduler_s=0.003,
            ops=10,
            moved_tokens=64,
            found_tokens=32,
        ),
    ]
    metrics = aggregate([], steps).metrics
    assert metrics["steps"] == 2
    assert metrics["running_batch_mean"] == pytest.approx((4 * 1 + 8 * 3) / 4)
    assert metrics["decode_rows_mean"] == pytest.approx((2 * 1 + 8 * 3) / 4)
    assert (metrics["running_batch_max"], metrics["waiting_max"]) == (8, 3)
    assert (metrics["accel_blocks_peak"], metrics["host_blocks_peak"], metrics["moved_tokens"]) == (10, 7, 64)
    assert metrics["found_tokens"] == 32
    assert metrics["scheduler_us_mean"] == pytest.approx(2000)
    assert metrics["scheduler_share"] == pytest.approx(0.001)
    assert metrics["overrun_share"] == pytest.approx(0.01)


def test_loads_of_both_sides() -> None:
    metrics = aggregate([], [step(0, 0.0, 10.0, gpu_busy_s=5.0, h2d_busy_s=1.0, cpu_busy_s=2.0)]).metrics
    assert (metrics["load_gpu_s"], metrics["load_cpu_s"]) == (6.0, 2.0)
    assert metrics["load_imbalance"] == pytest.approx(6 / 4 - 1)


def test_prediction_error_is_the_median_over_predicted_steps() -> None:
    # durations 1; errors 10, 20, 30, 40, 50, 60 %, and one step without a prediction
    steps = [step(i, float(i), i + 1.0, predicted_s=1.0 + 0.1 * (i + 1)) for i in range(6)] + [step(6, 6.0, 7.0)]
    metrics = aggregate([], steps).metrics
    assert metrics["prediction_error_percent_p50"] == pytest.approx(35)
    assert metrics["prediction_ratio"] == pytest.approx((6 + 2.1) / 6)


def test_what_the_steps_cannot_tell_is_said() -> None:
    measured = aggregate([], [step(0, 0.0, 1.0, gpu_busy_s=0.5)])
    assert measured.unavailable["overlap_efficiency"] == "no step kept two units busy"
    assert measured.unavailable["prediction_ratio"] == "nothing was predicted"
    assert measured.unavailable["overrun_share"] == "no ops were counted"
    assert not [key for key, value in measured.metrics.items() if not np.isfinite(value)]


def test_an_observation_is_a_row_of_the_file() -> None:
    columns = step_columns([StepObservation(0, 0.0, 1.0, mode="gpu_only"), StepObservation(1, 1.0, 2.0, running=3)])
    assert columns["step"] == [0, 1]
    assert columns["mode"] == ["gpu_only", ""]
    assert columns["predicted_s"] == [None, None]
    assert len(columns) == 23
    assert aggregate([], [StepObservation(0, 0.0, 2.0, gpu_busy_s=1.0)]).metrics["gpu_busy_share"] == 0.5


def test_a_unit_is_busy_once_however_many_ops_it_runs() -> None:
    ops = [
        OpSpan("CPU", "a", 0.0, 2.0, 0),
        OpSpan("CPU", "b", 1.0, 3.0, 0),
        OpSpan("CPU", "c", 5.0, 6.0, 0),
        OpSpan("GPU", "d", 0.0, 0.5, 0),
    ]
    busy = busy_seconds(ops)
    assert busy == {"gpu_busy_s": 0.5, "cpu_busy_s": 4.0, "h2d_busy_s": 0.0, "d2h_busy_s": 0.0, "disk_busy_s": 0.0}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10)), max_size=20))
def test_a_union_covers_exactly_the_moments_that_were_covered(spans: list[tuple[int, int]]) -> None:
    intervals = np.array([(start, start + length) for start, length in spans], dtype=float).reshape(-1, 2)
    covered = {moment for start, length in spans for moment in range(start, start + length)}
    merged = union_of(intervals)
    assert np.diff(merged).sum() == len(covered)
    assert (merged[1:, 0] > merged[:-1, 1]).all()
