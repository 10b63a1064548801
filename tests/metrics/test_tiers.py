"""Latency of requests on the GPU and on the host apart: a mean over both hides what the slower ones wait."""

import pytest

from harness.metrics import aggregate
from tests.metrics.cells import request


def test_each_side_has_its_own_pace() -> None:
    metrics = aggregate(
        [
            request(0, 0.0, [1.0, 1.1, 1.2], tier="accel"),
            request(1, 0.0, [2.0, 3.0, 4.0], tier="host"),
            request(2, 0.0, [9.0, 19.0], tier="host", warmup=True),
        ]
    ).metrics
    assert metrics["host_requests"] == 1
    assert metrics["accel_tpot_s_mean"] == pytest.approx(0.1)
    assert metrics["host_tpot_s_mean"] == pytest.approx(1.0)
    assert metrics["accel_ttft_s_mean"] == pytest.approx(1.0)
    assert metrics["host_ttft_s_mean"] == pytest.approx(2.0)
    assert metrics["tpot_s_mean"] == pytest.approx(0.55)


def test_one_side_alone_is_not_told_apart() -> None:
    metrics = aggregate([request(0, 0.0, [1.0, 1.1, 1.2])]).metrics
    assert metrics["host_requests"] == 0
    assert not [key for key in metrics if key.startswith(("accel_t", "host_t"))]
