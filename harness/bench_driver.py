"""`harness bench driver`: how far the driver's own lateness moves a figure, at three rates, against the mock engine.

Repeats are interleaved over the rates, and medians are shown: what else this machine does is no property of the driver.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from harness.calibrate import LIMIT_S, Calibration, driver_error

RATES_RPS = (50.0, 200.0, 500.0)
REPEATS = 5
SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class DriverTiming:
    """Medians over the repeats; `ttft_error_s_p99_each` are the p99 of every repeat."""

    rate_rps: float
    requests: int
    repeats: int
    ttft_error_s_p50: float
    ttft_error_s_p99: float
    dispatch_delay_s_p99: float
    ttft_error_s_p99_each: tuple[float, ...]
    valid: bool
    limit_s: float = LIMIT_S


def measure(
    rates_rps: Sequence[float] = RATES_RPS, repeats: int = REPEATS, seconds: float = SECONDS
) -> list[DriverTiming]:
    found: dict[float, list[Calibration]] = {rate: [] for rate in rates_rps}
    for repeat in range(repeats):
        for rate, calibrations in found.items():
            calibrations.append(driver_error(rate, seconds, seed=repeat))
    return [_medians(calibrations) for calibrations in found.values()]


def main(as_json: bool) -> None:
    rows = measure()
    if as_json:
        print(json.dumps({"label": "measured on this machine, wall clock", "rows": [asdict(row) for row in rows]}))
        return
    for row in rows:
        each = ", ".join(f"{p99_s * 1e3:.2f}" for p99_s in row.ttft_error_s_p99_each)
        verdict = "valid" if row.valid else "INVALID: free this machine"
        print(
            f"{row.rate_rps:g} requests/s: TTFT error p50 {row.ttft_error_s_p50 * 1e3:.2f} ms, "
            f"p99 {row.ttft_error_s_p99 * 1e3:.2f} ms ({each}), dispatch delay p99 "
            f"{row.dispatch_delay_s_p99 * 1e3:.2f} ms; medians of {row.repeats} x {row.requests} requests "
            f"(limit: p99 <= {row.limit_s * 1e3:g} ms): {verdict}"
        )


def _medians(calibrations: Sequence[Calibration]) -> DriverTiming:
    p99s = tuple(found.ttft_error_s_p99 for found in calibrations)
    return DriverTiming(
        rate_rps=calibrations[0].rate_rps,
        requests=calibrations[0].requests,
        repeats=len(calibrations),
        ttft_error_s_p50=median(found.ttft_error_s_p50 for found in calibrations),
        ttft_error_s_p99=median(p99s),
        dispatch_delay_s_p99=median(found.dispatch_delay_s_p99 for found in calibrations),
        ttft_error_s_p99_each=p99s,
        valid=median(p99s) <= LIMIT_S,
    )
