"""What every metric means, as formulas: peers disagree on TPOT and on burstiness, so a bare name says little."""

from __future__ import annotations

from reports.rendering import Section, render
from results.waterfall import FORMULA

DEFINITIONS = (
    ("ttft_s", "first token − arrival", "Arrival is when the request should have been sent, not when the client did."),
    ("tpot_s", "(last token − first token) / (output tokens − 1)", "Each request counts once."),
    ("itl_s", "every gap between neighbouring tokens", "Pooled over requests: long answers weigh more."),
    ("max_stall_s", "the largest gap of a request", ""),
    ("e2e_s", "last token − arrival", ""),
    ("normalized_latency_s_per_token", "e2e / output tokens", ""),
    ("queue_s", "first scheduled − arrival", "Includes the client's own lateness when the engine runs in-process."),
    ("preempted_s", "time lost to preemption", ""),
    (
        "window",
        "first to last arrival of the requests that are no warm-up",
        "The plateau, if at least half of them also ended in it; else the whole run, warm-up and drain included.",
    ),
    (
        "output_tokens_per_s",
        "output tokens in the window / window",
        "Of finished requests. Rates count what came in the window, also from warm-up requests.",
    ),
    ("requests_per_s", "last tokens in the window / window", ""),
    ("total_tokens_per_s", "(output tokens + prompt tokens of first tokens) in the window / window", ""),
    ("goodput_rps", "last tokens in the window of requests that met every SLO / window", "Only where SLOs are given."),
    ("saturation_rps", "the highest rate at which the SLO was met", "Only where it was searched for."),
    (
        "fluidity_index",
        "share of tokens delivered before their deadline",
        "Slack is carried over: it punishes stalls that a mean hides.",
    ),
    ("arrival_cv", "standard deviation / mean of the gaps between arrivals", "What others call burstiness."),
    ("busy", "time a unit worked / serving time", "Of one unit: GPU, CPU attention, or a link."),
    ("bubble", "(time inside steps − time the unit worked) / serving time", ""),
    (
        "overlap_efficiency",
        "Σ(sum of the units’ times − step) / Σ(sum − longest of the units’ times)",
        "Of the work that could run beside other work, how much is shown to have.",
    ),
    (
        "prediction_error_percent",
        "100 · |predicted − observed| / observed, of a step",
        "Of the engine’s own predictor, before the step ran.",
    ),
    (
        "why (of a comparison)",
        FORMULA,
        "`harness compare` prints it: terms in tokens per second that add up to a change.",
    ),
    ("sampler_cost_share", "CPU seconds of the sampling threads / wall seconds", "What watching cost."),
    (
        "Pareto front",
        "points that no other point equals or beats in both throughput and latency",
        "Over all engines and rates of one workload.",
    ),
)


def build() -> Section:
    return Section("definitions", "Definitions", render("definitions.html", definitions=DEFINITIONS))
