"""`multi_turn`: users who read the answer, think, and ask again with everything said so far as the prompt.

`rate` and `arrivals` are of conversations, not of requests: only first turns have a schedule. Not a model of prefix
caching: it makes prompts that share a beginning, and leaves what to do with that to the engine.
"""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from workloads.arrivals import AllAtOnce
from workloads.fitted import LMSYS, LMSYS_SOURCE
from workloads.lengths import scaled
from workloads.options import Options
from workloads.schedules import schedule_from
from workloads.streams import Purpose, uniforms
from workloads.synthetic import requests_of, scale_of, workload_of
from workloads.types import Request, Workload

MAX_TURNS = 1000
SOURCES = (LMSYS_SOURCE, "turns and exponential think time: the experiment's choice, not measured")


def multi_turn(options: Options, seed: int) -> Workload:
    """`requests` in all, `turns` to a conversation (the last one may be shorter), think times with mean `think_s`."""
    count, turns = requests_of(options), options.whole("turns", maximum=MAX_TURNS)
    schedule = schedule_from(options, AllAtOnce())
    starts = schedule.arrivals.times(-(-count // turns), seed).tolist()
    thinks = (-np.log1p(-uniforms(seed, Purpose.THINK_TIME, count)) * options.between("think_s", 0, 1e6)).tolist()
    messages, answers = (scaled(tokens, scale_of(options)).tolist() for tokens in LMSYS.draw(count, seed))
    drawn = []  # in the order of conversations and turns, so that a change of arrivals changes no length
    for first in range(0, count, turns):
        session = first // turns
        history, arrival_s = 0, starts[session]
        for turn, row in enumerate(range(first, min(first + turns, count))):
            think_s = thinks[row] if turn else schedule.think_s
            arrival_s += think_s if turn and not schedule.users else 0.0
            history += messages[row]
            drawn.append(Request(row, arrival_s, history, answers[row], session, turn, think_s))
            history += answers[row]
    return workload_of(options, schedule, _numbered_by_arrival(drawn), SOURCES)


def _numbered_by_arrival(requests: list[Request]) -> tuple[Request, ...]:
    """The sort is stable: at one moment, earlier conversations and turns come first."""
    ordered = sorted(requests, key=attrgetter("arrival_s"))
    return tuple(
        Request(number, r.arrival_s, r.prompt_tokens, r.output_tokens, r.session, r.turn, r.think_s)
        for number, r in enumerate(ordered)
    )
