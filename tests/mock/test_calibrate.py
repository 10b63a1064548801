"""The arithmetic of the driver's error in simulated time, and that on the wall clock it judges itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engines.core.clock import VirtualClock
from engines.mock.law import LatencyLaw
from harness import bench_driver
from harness.calibrate import LIMIT_S, Calibration, calibrate_run, driver_error, peak_offered_rps
from tests.mock.worlds import cell_spec


class LateClock(VirtualClock):
    """Wakes up later than asked, as a loaded machine does."""

    def wait_until(self, moment_s: float) -> None:
        super().wait_until(moment_s + 1e-3)


def test_a_driver_that_is_never_late_is_off_by_its_polling_only() -> None:
    found = driver_error(100, 2.0, clock=VirtualClock())
    assert (found.rate_rps, found.requests) == (100, 200)
    assert 0 <= found.ttft_error_s_p50 <= found.ttft_error_s_p99 <= 0.5e-3 + 1e-9
    assert found.dispatch_delay_s_p99 == 0
    assert found.valid


def test_lateness_is_found_and_judged() -> None:
    found = driver_error(20, 5.0, clock=LateClock(), law=LatencyLaw(0.02, tpot_s=0.005, jitter=0.3))
    assert 0 < found.dispatch_delay_s_p99 <= 1.5e-3
    assert found.dispatch_delay_s_p99 < found.ttft_error_s_p99 < 4e-3
    assert found.valid == (found.ttft_error_s_p99 <= LIMIT_S)
    assert not found.valid


def test_on_the_wall_clock_it_is_valid_or_says_so() -> None:
    found = driver_error(200, 0.3, output_tokens=2)
    assert found.requests == 60
    assert found.ttft_error_s_p50 >= 0
    assert found.valid == (found.ttft_error_s_p99 <= LIMIT_S)


def test_a_run_is_calibrated_at_its_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def record(rate_rps: float, seconds: float) -> Calibration:
        asked.append((rate_rps, seconds))
        return Calibration(rate_rps, 9, 1e-3, 3e-3, 1e-3, valid=False)

    monkeypatch.setattr("harness.calibrate.driver_error", record)
    paced = {"backend": "cpu", "dtype": "float32"}
    slow = {
        "kind": "long_output",
        "prompt": 8,
        "output": 4,
        "requests": 40,
        "arrivals": {"kind": "constant", "rate": 2},
    }
    burst = slow | {"arrivals": {"kind": "burst", "burst": 8, "rate": 2}}
    closed = slow | {"arrivals": {"kind": "closed_loop", "users": 70}}
    cells = [cell_spec(tmp_path, workloads=[workload], **paced) for workload in (slow, burst, closed)]
    assert [peak_offered_rps([cell]) for cell in cells] == [2, 8, 40]
    assert peak_offered_rps(cells) == 40
    found = calibrate_run(cells)
    at_once = cell_spec(tmp_path, workloads=[slow | {"arrivals": "all_at_once", "requests": 9000}], **paced)
    calibrate_run([at_once])
    assert [rate for rate, _ in asked] == [200, 500]  # enough to count, and no more than there is to expect
    assert all(seconds <= 2 for _, seconds in asked)
    assert found["peak_offered_rps"] == 40
    assert found["valid"] is False
    assert "free this machine" in str(found["note"])
    json.dumps(found)


def test_a_simulated_run_has_no_driver_to_calibrate(tmp_path: Path) -> None:
    found = calibrate_run([cell_spec(tmp_path)])
    assert found["applies"] is False
    assert "virtual time" in str(found["note"])


def test_bench_driver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    errors_s = iter([1e-3, 9e-3, 5e-3, 3e-3, 1.5e-3, 7e-3])

    def measured(rate_rps: float, seconds: float, seed: int) -> Calibration:
        return Calibration(rate_rps, 10, 1e-4, next(errors_s), 1e-5, valid=True)

    monkeypatch.setattr("harness.bench_driver.driver_error", measured)
    rows = bench_driver.measure((50.0, 200.0), repeats=3)
    assert [row.ttft_error_s_p99_each for row in rows] == [(1e-3, 5e-3, 1.5e-3), (9e-3, 3e-3, 7e-3)]
    assert [(row.ttft_error_s_p99, row.valid) for row in rows] == [(1.5e-3, True), (7e-3, False)]
    monkeypatch.setattr("harness.bench_driver.measure", lambda: rows)
    bench_driver.main(as_json=True)
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2
    bench_driver.main(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "valid" in lines[0]
    assert "INVALID" in lines[1]
