"""What every metric of a cell means: key, unit, formula, meaning. The one place where readers find the formulas.

They are computed in metrics.py and collectors/steps.py; a test holds the two together. Keys, units and meanings are
part of the results format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engines.openai.faults import MEANINGS

ABOUT = """\
All times are on one clock per cell, 0 at the start of serving. An arrival is when a request should have been sent.
Only finished requests count, in latencies and in tokens; refused, aborted and failed ones are counted as such.
Latencies are of requests that are no warm-up, those that ended in the drain included: long ones would be missing else.
Window: first to last arrival of the requests that are no warm-up, if at least half of them also ended in it
(window_is_plateau = 1). Otherwise, as when all arrive at once, it is the whole run: first arrival of any request to the
last token, warm-up and drain included. Rates count what came in the window, from warm-up requests too.
A spread has _mean, _max, and _p50 _p90 _p95 _p99, each with a 95 % interval in _p50_low, _p50_high and so on. These are
order statistics with equal tails: they exist from 6, 36, 72, 368 observations on; below, the percentile is left out.
They take requests for independent. Queues make neighbours alike, so engines are compared by repeats, not by these.
Percentiles interpolate linearly (numpy's default). Past 262,144 values they come from bins and are within 0.5 %.
Serving time: first arrival, or step, to the last token or end of a step. Busy times are as the executor reports."""


@dataclass(frozen=True, slots=True)
class Metric:
    key: str
    unit: str
    formula: str
    meaning: str
    has_spread: bool = False
    has_whole_run: bool = False  # also over the whole run, as <key>_whole_run
    higher_is_better: bool | None = None


def _spread(key: str, unit: str, formula: str, meaning: str) -> Metric:
    return Metric(key, unit, formula, meaning, has_spread=True, higher_is_better=False)


def _rate(key: str, unit: str, formula: str, meaning: str) -> Metric:
    return Metric(key, unit, formula, meaning, has_whole_run=True, higher_is_better=True)


PER_REQUEST = (
    _spread("ttft_s", "s", "first token - arrival", "how long until something is to be seen"),
    _spread("tpot_s", "s", "(last token - first token) / (n_out - 1)", "mean pace of an answer; each request once"),
    _spread(
        "itl_s",
        "s",
        "token[i] - token[i-1], over all requests",
        "every gap, pooled. Requests decoded in one step share its gap, so that an interval counts n / m observations,"
        " m = sum(last - first) / (last of all - first of all), the mean number decoding at once",
    ),
    _spread(
        "accel_ttft_s", "s", "ttft_s of requests most of whose tokens attended on the GPU", "only where some did not"
    ),
    _spread("accel_tpot_s", "s", "tpot_s of the same", "the pace of an answer whose KV is on the GPU"),
    _spread("host_ttft_s", "s", "ttft_s of requests most of whose tokens attended on the host", "only where some did"),
    _spread("host_tpot_s", "s", "tpot_s of the same", "the pace of an answer whose KV is on the host"),
    _spread("max_stall_s", "s", "max over i of token[i] - token[i-1]", "the longest wait within an answer"),
    _spread("e2e_s", "s", "last token - arrival", "how long until the answer is complete"),
    _spread("normalized_latency_s_per_token", "s/token", "e2e_s / n_out", "latency per token, queueing included"),
    _spread("queue_s", "s", "first scheduled - arrival", "waiting before any work was done on it"),
    _spread("preempted_s", "s", "time between being preempted and running again", "time lost to preemption"),
    _spread(
        "dispatch_delay_s", "s", "dispatch - arrival", "how late the load generator was: an error of the instrument"
    ),
)

THROUGHPUT = (
    _rate("output_tokens_per_s", "tokens/s", "output tokens in the window / window_s", "the headline"),
    _rate(
        "total_tokens_per_s",
        "tokens/s",
        "(output tokens + prompt tokens of first tokens in the window) / window_s",
        "work",
    ),
    _rate("requests_per_s", "1/s", "last tokens in the window / window_s", "answers completed"),
    _rate(
        "goodput_rps",
        "1/s",
        "last tokens in the window of requests within every limit of slo / window_s",
        "useful answers",
    ),
    Metric(
        "decode_tokens_per_s",
        "tokens/s",
        "sum(n_out - 1) / (last token of all - first token of all)",
        "decode length over decode time, as offline papers report it",
        higher_is_better=True,
    ),
    Metric(
        "response_latency_s",
        "s",
        "last token of all - first arrival of all",
        "when a user who sent everything as one batch has all of it",
        higher_is_better=False,
    ),
    Metric("window_s", "s", "end - start of the window", "what the rates are over"),
    Metric("window_start_s", "s", "start of the window", "on the cell's clock"),
    Metric("window_is_plateau", "1", "1 for the plateau, 0 for the whole run", "which of the two the window is"),
)

SERVICE = (
    Metric(
        "slo_attainment",
        "share",
        "finished within every limit of slo / asked",
        "share of the requests, refused ones too; an answer of one token has no TPOT to miss",
        higher_is_better=True,
    ),
    Metric(
        "fluidity_index",
        "share",
        "tokens with token[i] <= arrival + slo.ttft_s + i * slo.tpot_s / tokens",
        "what was there when a steady reader came to it: being early earns slack, a stall is paid for until caught up",
        higher_is_better=True,
    ),
    Metric(
        "saturation_rps",
        "1/s",
        "highest rate offered at which slo_attainment reached what was asked",
        "found by doubling, then bisecting; the rate as drawn, not as asked",
        higher_is_better=True,
    ),
    Metric("saturation_probes", "1", "cells served in the search", "how many rates were tried"),
    Metric("finished_requests", "1", "status finished, no warm-up", "answered in full", higher_is_better=True),
    Metric("refused_requests", "1", "status refused, no warm-up", "the engine could never have held them"),
    Metric("aborted_requests", "1", "status aborted, no warm-up", "given up by the client or the harness"),
    Metric("failed_requests", "1", "status failed, no warm-up", "lost to an error"),
    Metric("host_requests", "1", 'status finished and tier "host", no warm-up', "most of their tokens attended there"),
    Metric("warmup_requests", "1", "requests marked as warm-up", "not in any latency or count above"),
    Metric(
        "preemptions", "1", "sum of preemptions, no warm-up", "evictions from the running batch", higher_is_better=False
    ),
)

# Of endpoints, and of whatever else names its failures so. Only those that happened are in a summary.
FAULTS = tuple(
    Metric(f"fault_{fault}_requests", "1", f'status failed, reason "{fault}: ...", no warm-up', meaning)
    for fault, meaning in MEANINGS.items()
)

MACHINE = (
    Metric("gpu_busy_share", "share", "sum(gpu_busy_s) / serving time", "GPU at work"),
    Metric("cpu_busy_share", "share", "sum(cpu_busy_s) / serving time", "host at work on the model"),
    Metric("h2d_busy_share", "share", "sum(h2d_busy_s) / serving time", "link to the GPU at work"),
    Metric("d2h_busy_share", "share", "sum(d2h_busy_s) / serving time", "link from the GPU at work"),
    Metric("disk_busy_share", "share", "sum(disk_busy_s) / serving time", "disk at work"),
    Metric(
        "bubble_share",
        "share",
        "max(0, time with a request in the system - sum(gpu_busy_s)) / serving time",
        "GPU idle while work was pending",
        higher_is_better=False,
    ),
    Metric("idle_share", "share", "time without any request in the system / serving time", "nothing to do"),
    Metric(
        "overlap_efficiency",
        "share",
        "sum(clip(S - D, 0, S - M)) / sum(S - M) over steps; S sum and M maximum of the units' busy times, D duration",
        "of the work that could run beside other work, how much is shown to have; idle time within a step lowers it",
        higher_is_better=True,
    ),
    Metric("load_gpu_s", "s", "sum(gpu_busy_s + h2d_busy_s)", "S_gpu: computing, and fetching what is not resident"),
    Metric("load_cpu_s", "s", "sum(cpu_busy_s)", "S_cpu"),
    Metric(
        "load_imbalance",
        "share",
        "|S_gpu - S_cpu| / (S_gpu + S_cpu)",
        "lambda: maximum / mean - 1; 0 is balanced, 1 is all on one side",
        higher_is_better=False,
    ),
)

MODES = {
    "gpu_only": "the GPU's own rows, host decodes stand still",
    "sequential": "host and GPU in turns",
    "asymmetric": "two halves take turns on the GPU, one's host attention behind the other's",
    "async_overlap": "host decodes join when they are ready",
    "full_overlap": "the same, and some keep up with the batch",
}

HINDSIGHT = (
    Metric(
        "regret_share",
        "share",
        "sum(D * (1 - rate of the mode / rate of the best mode)) / sum(D); D duration of a step",
        "time lost by modes: every step again, priced in all modes by the cost model, with requests where they were",
        higher_is_better=False,
    ),
    *(Metric(f"mode_share_{mode}", "share", f'sum(D of mode "{mode}") / sum(D)', what) for mode, what in MODES.items()),
    *(
        Metric(f"best_share_{mode}", "share", f'sum(D where "{mode}" was best in hindsight) / sum(D)', what)
        for mode, what in MODES.items()
    ),
)

STEPS = (
    Metric("steps", "1", "number of steps", "iterations of the engine"),
    Metric("running_batch_mean", "requests", "sum(running * duration) / sum(duration)", "batch size over time"),
    Metric("running_batch_max", "requests", "max(running)", "largest batch"),
    Metric("decode_rows_mean", "rows", "sum(decode_rows * duration) / sum(duration)", "decoding rows over time"),
    Metric("waiting_max", "requests", "max(waiting)", "longest queue"),
    Metric("accel_blocks_peak", "blocks", "max(accel_blocks_used)", "most KV blocks in use on the GPU"),
    Metric("host_blocks_peak", "blocks", "max(host_blocks_used)", "most KV blocks in use on the host"),
    Metric("moved_tokens", "tokens", "sum(moved_tokens)", "KV moved between the tiers"),
    Metric("found_tokens", "tokens", "sum(found_tokens)", "KV that preempted requests found again, not recomputed"),
    _spread("scheduler_us", "us", "1e6 * scheduler_s of a step", "deciding"),
    Metric("scheduler_share", "share", "sum(scheduler_s) / serving time", "deciding", higher_is_better=False),
    Metric(
        "overrun_share",
        "share",
        "sum(overruns) / sum(ops)",
        "emulated ops slower than their pace; over 0.01 is invalid",
    ),
    _spread(
        "prediction_error_percent",
        "%",
        "100 * |predicted_s - duration| / duration of a step with a prediction",
        "how wrong the engine's own predictor was; _p50 is the median absolute error",
    ),
    Metric(
        "prediction_ratio", "1", "sum(predicted_s) / sum(duration) over the same steps", "its bias: above 1 is too slow"
    ),
    Metric(
        "energy_j_per_output_token",
        "J/token",
        "(gpu_energy_j at the last sample - at the first) / output tokens",
        "GPU only; from the energy counter (measured), else integrated power samples (estimated), else unavailable",
        higher_is_better=False,
    ),
    Metric("sampler_cost_share", "share", "CPU seconds of the sampling threads / wall seconds", "what watching cost"),
)

MEMORY = (
    Metric(
        "peak_accel_bytes",
        "bytes",
        "weights and buffers there + max over steps of the blocks used, each times what it takes there",
        "the most that was in use on the GPU, without the workspace of a step's rows",
        higher_is_better=False,
    ),
    Metric("peak_host_bytes", "bytes", "the same in the host's memory, of both pools", "a block's layers may be there"),
    Metric("peak_disk_bytes", "bytes", "the same on disk", "and here"),
)

CATALOGUE = (*PER_REQUEST, *THROUGHPUT, *SERVICE, *FAULTS, *MACHINE, *STEPS, *MEMORY, *HINDSIGHT)
SPREAD_SUFFIX = re.compile(r"_(mean|max|p(50|90|95|99)(_low|_high)?)$")


def find(key: str) -> Metric | None:
    """The metric that a key of a summary belongs to: `ttft_s_p99_low` to ttft_s."""
    for metric in CATALOGUE:
        rest = key.removeprefix(metric.key)
        if rest == "" and not metric.has_spread:
            return metric
        if rest != key and metric.has_spread and SPREAD_SUFFIX.fullmatch(rest):
            return metric
        if rest == "_whole_run" and metric.has_whole_run:
            return metric
    return None
