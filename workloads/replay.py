"""`trace`: the first `requests` lines of a file that the user brings, or all of it.

Not a generator: nothing is drawn unless `rate` or `arrivals` replace the trace's own times.
"""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from operator import attrgetter

import numpy as np

from workloads.arrivals import TraceTimes
from workloads.options import Options
from workloads.synthetic import of_single_requests, requests_of
from workloads.traces import FORMAT_NAMES, TraceLine, TraceReader
from workloads.types import Workload, WorkloadError


def trace(options: Options, seed: int) -> Workload:
    reader = TraceReader(options.text("path"), options.choice("format", FORMAT_NAMES))
    wanted = requests_of(options) if options.given("requests") else None
    with closing(reader.__iter__()) as source:
        in_file_order = list(islice(source, wanted))
    if not in_file_order:
        raise WorkloadError(f"trace {reader.path} has a header and no requests")
    if wanted is not None and len(in_file_order) < wanted:
        raise options.mistake("requests", f"is {wanted}, but {reader.path} has only {len(in_file_order)}")
    lines = sorted(in_file_order, key=attrgetter("arrival_s"))
    return of_single_requests(
        options,
        seed,
        np.array([line.prompt_tokens for line in lines], dtype=np.int64),
        np.array([line.output_tokens for line in lines], dtype=np.int64),
        _sources(reader, in_file_order, moved=sum(a is not b for a, b in zip(in_file_order, lines, strict=True))),
        TraceTimes(np.array([line.arrival_s for line in lines], dtype=np.float64)),
    )


def _sources(reader: TraceReader, lines: list[TraceLine], moved: int) -> tuple[str, ...]:
    sources = [f"trace {reader.path.name} ({reader.format} format), the first {len(lines)} requests"]
    if reader.left_out:
        sources.append(f"{reader.left_out} failed requests of the trace left out")
    if moved:
        sources.append(f"{moved} lines of the trace were not in the order of time and were sorted")
    return tuple(sources)
