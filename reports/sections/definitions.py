"""What every metric means, as formulas: peers disagree on TPOT and on burstiness, so a bare name says little."""

from __future__ import annotations

from reports.rendering import Section, render

DEFINITIONS = (
    ("ttft_s", "first token − arrival", "Arrival is when the request should have been sent, not when the client did."),
    ("tpot_s", "(last token − first token) / (output tokens − 1)", "Each request counts once."),
    ("itl_s", "every gap between neighbouring tokens", "Pooled over requests: long answers weigh more."),
    ("max_stall_s", "the largest gap of a request", ""),
    ("e2e_s", "last token − arrival", ""),
    ("normalized_latency_s_per_token", "e2e / output tokens", ""),
    ("queue_s", "first scheduled − arrival", "Includes the client's own lateness when the engine runs in-process."),
    ("preempted_s", "time lost to preemption", ""),
    ("output_tokens_per_s", "output tokens / duration", "Over the measured window; warm-up left out."),
    ("requests_per_s", "requests finished / duration", ""),
    ("total_tokens_per_s", "(prompt + output tokens) / duration", ""),
    ("goodput_rps", "requests that met every SLO / duration", "Only where the experiment states SLOs."),
    (
        "fluidity_index",
        "share of tokens delivered before their deadline",
        "Slack is carried over: it punishes stalls that a mean hides.",
    ),
    ("arrival_cv", "standard deviation / mean of the gaps between arrivals", "What others call burstiness."),
    ("busy", "time a unit worked / serving time", "Of one unit: GPU, CPU attention, or a link."),
    ("bubble", "(time inside steps − time the unit worked) / serving time", ""),
)


def build() -> Section:
    return Section("definitions", "Definitions", render("definitions.html", definitions=DEFINITIONS))
