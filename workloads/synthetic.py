"""Generators of single requests: chat, cot, code, summarize, long_output, batch.

Not here: conversations (`conversations`), traces (`replay`), and the fitted numbers (`fitted`). All accept `requests`,
`rate` or `arrivals`, and `scale`, the one factor that shrinks a workload made for a T4 to the quickstart's model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workloads.arrivals import AllAtOnce, Arrivals, ClosedLoop
from workloads.lengths import Fixed, Jittered, Joint, Tokens, scaled
from workloads.options import Options
from workloads.packed import PackedRequests
from workloads.schedules import Schedule, schedule_from
from workloads.types import Request, Workload

MAX_REQUESTS = 10_000_000
MIN_SCALE, MAX_SCALE = 1e-6, 1e3
LONG_OUTPUT_SOURCES = ("prompt 1,000, output 50-400, +-10 %: NEO (MLSys 2025); other lengths as asked",)
BATCH_SOURCES = (
    "prompt 896, output 128: the survey 'Heterogeneous System for LLM Inference Acceleration', figures 7 and 14;"
    " other lengths as asked",
)

Build = Callable[[Options, int], Workload]


def fitted_to(joint: Joint, *sources: str) -> Build:
    """A kind whose lengths are drawn from distributions fitted to a trace."""

    def build(options: Options, seed: int) -> Workload:
        prompts, outputs = joint.draw(requests_of(options), seed)
        return of_single_requests(options, seed, prompts, outputs, sources, AllAtOnce())

    return build


def long_output(options: Options, seed: int) -> Workload:
    """Prompt and output each uniform within `jitter` of one length."""
    jitter = options.between("jitter", 0, 0.99)
    prompt, output = (Jittered(options.whole(key), jitter) for key in ("prompt", "output"))
    prompts, outputs = Joint(prompt, (output,)).draw(requests_of(options), seed)
    return of_single_requests(options, seed, prompts, outputs, LONG_OUTPUT_SOURCES, AllAtOnce())


def batch(options: Options, seed: int) -> Workload:
    """`batch` equal requests at once; more `requests` than that are kept `batch` at a time in flight."""
    size = options.whole("batch", maximum=MAX_REQUESTS)
    count = requests_of(options) if options.given("requests") else size
    if count < size:
        raise options.mistake("requests", f"must be at least batch ({size}), not {count}")
    lengths = Joint(Fixed(options.whole("prompt")), (Fixed(options.whole("output")),))
    prompts, outputs = lengths.draw(count, seed)
    default: Arrivals = ClosedLoop(size) if count > size else AllAtOnce()
    return of_single_requests(options, seed, prompts, outputs, BATCH_SOURCES, default)


def requests_of(options: Options) -> int:
    return options.whole("requests", maximum=MAX_REQUESTS)


def scale_of(options: Options) -> float:
    return options.between("scale", MIN_SCALE, MAX_SCALE)


def of_single_requests(
    options: Options, seed: int, prompts: Tokens, outputs: Tokens, sources: tuple[str, ...], default: Arrivals
) -> Workload:
    """Give each pair of lengths its scale and its time. `prompts` and `outputs` are [requests]."""
    scale = scale_of(options)
    schedule = schedule_from(options, default)
    times = schedule.arrivals.times(len(prompts), seed).tolist()
    pairs = zip(times, scaled(prompts, scale).tolist(), scaled(outputs, scale).tolist(), strict=True)
    requests = PackedRequests(
        Request(number, time, prompt, output, think_s=schedule.think_s)
        for number, (time, prompt, output) in enumerate(pairs)
    )
    return workload_of(options, schedule, requests, sources)


def workload_of(
    options: Options, schedule: Schedule, requests: Sequence[Request], sources: tuple[str, ...]
) -> Workload:
    scale = scale_of(options)
    all_sources = (*sources, *schedule.sources, *((f"all lengths scaled by {scale:g}",) if scale != 1 else ()))
    return Workload(
        name=options.text("name"),
        kind=options.text("kind"),
        requests=requests,
        arrivals=schedule.arrivals.label,
        sources=all_sources,
        clipped=None,
        closed_loop_users=schedule.users,
    )
