"""The error of the driver itself: the loop that serves every engine, run against one whose latencies are known.

On the wall clock, at a given load; what is observed beyond the law is what the driver adds to every figure it takes.
Not here: the engines' own lateness, and simulated time, in which the driver cannot be late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engines.core.clock import Clock, MonotonicClock
from engines.mock.adapter import MockAdapter
from engines.mock.law import LatencyLaw
from harness.arrival_source import ArrivalSource
from harness.driver import serve
from harness.plan import CellSpec
from harness.recorder import RequestRecorder
from workloads import build

LIMIT_S = 2e-3  # an instrument that is off by more says so
LAW = LatencyLaw(ttft_s=0.02, tpot_s=0.005)
PROMPT_TOKENS, OUTPUT_TOKENS = 128, 8

# A run is calibrated at its own peak, but at no less than gives enough requests in the time there is: a higher load
# only makes the driver later. Past the upper end the driver is asked for more than it is built for.
RUN_SECONDS = 1.2
LEAST_RPS, MOST_RPS = 200.0, 500.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """TTFT as observed against TTFT by the law. `valid`: the instrument is good enough to be believed at this rate."""

    rate_rps: float
    requests: int
    ttft_error_s_p50: float
    ttft_error_s_p99: float
    dispatch_delay_s_p99: float
    valid: bool


def driver_error(
    rate_rps: float,
    seconds: float,
    *,
    law: LatencyLaw = LAW,
    output_tokens: int = OUTPUT_TOKENS,
    seed: int = 0,
    clock: Clock | None = None,
) -> Calibration:
    """Serve Poisson arrivals for about so many seconds. Another clock than the wall's only checks this arithmetic."""
    lengths = {"prompt": PROMPT_TOKENS, "output": output_tokens, "jitter": 0.0}
    requests = max(1, round(rate_rps * seconds))
    workload = build({"kind": "long_output", "requests": requests, "rate": rate_rps, **lengths}, seed)
    rows: list[Mapping[str, Any]] = []
    arrivals, recorder = ArrivalSource(workload), RequestRecorder(rows.append, warmup_requests=0)
    clock = clock or MonotonicClock()  # the last thing made: its zero is when the first request is due
    serve(MockAdapter(law, clock), arrivals, clock, recorder, prompts={})
    return _compared(rows, law, rate_rps)


def _compared(rows: Sequence[Mapping[str, Any]], law: LatencyLaw, rate_rps: float) -> Calibration:
    observed_s = np.array([row["first_token_s"] - row["arrival_s"] for row in rows])
    expected_s = [law.token_times_s(row["request_id"], row["prompt_tokens"], 1, 0.0)[0] for row in rows]
    error_s = np.abs(observed_s - np.array(expected_s))
    delay_s = np.array([row["dispatch_s"] - row["arrival_s"] for row in rows])
    p99_s = float(np.quantile(error_s, 0.99))
    return Calibration(
        rate_rps=rate_rps,
        requests=len(rows),
        ttft_error_s_p50=float(np.median(error_s)),
        ttft_error_s_p99=p99_s,
        dispatch_delay_s_p99=float(np.quantile(delay_s, 0.99)),
        valid=p99_s <= LIMIT_S,
    )


def calibrate_run(cells: Sequence[CellSpec]) -> dict[str, object]:
    """The driver's error at the peak load of a run, once per run and in less than two seconds, for its manifest."""
    if all(cell.backend == "sim" for cell in cells):
        return {"applies": False, "note": "simulated: in virtual time the driver is never late"}
    peak_rps = peak_offered_rps(cells)
    found = driver_error(min(max(peak_rps, LEAST_RPS), MOST_RPS), RUN_SECONDS)
    return {
        "applies": True,
        "peak_offered_rps": peak_rps,
        **asdict(found),
        "limit_s": LIMIT_S,
        "note": _sentence(found),
    }


def peak_offered_rps(cells: Sequence[CellSpec]) -> float:
    """The most requests that arrive within one second in any workload of the run; all users, where loops are closed."""
    drawn = {(cell.workload.name, cell.measure.seed): cell for cell in cells}
    return max((_busiest_second(cell) for cell in drawn.values()), default=0.0)


def _busiest_second(cell: CellSpec) -> float:
    workload = build(cell.workload.options, cell.measure.seed)
    if workload.closed_loop_users:
        return float(min(workload.closed_loop_users, len(workload.requests)))
    times_s = np.array([request.arrival_s for request in workload.requests])
    return float((np.searchsorted(times_s, times_s + 1.0, side="left") - np.arange(times_s.size)).max())


def _sentence(found: Calibration) -> str:
    head = (
        f"driver error at {found.rate_rps:g} requests/s against an engine of known latency: TTFT p50 "
        f"{found.ttft_error_s_p50 * 1e3:.2f} ms, p99 {found.ttft_error_s_p99 * 1e3:.2f} ms of {found.requests} requests"
    )
    if found.valid:
        return head
    return f"{head}: more than {LIMIT_S * 1e3:g} ms, so latencies of that size mean nothing here; free this machine"
