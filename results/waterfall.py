"""Why throughput differs between two cells: one term per cause, in tokens per second, which add up to the change.

A cell's throughput is one over its seconds per output token, and those are a sum over what the window was spent on
(window_steps.py), each part a product of factors:

    seconds per token = empty                                          no request in the system
                      + pace x (fixed x s + work x w), twice           accelerator: matrices, attention
                      + host excess + unhidden x host hideable         busy beyond the accelerator, or beside nothing
                      + links excess + unhidden x links hideable       busy beyond both, or beside nothing
                      + nothing                                        in a step, and no unit busy
                      + between                                        between steps, with a request in the system
    s = steps per decode row x decode rows per output token + steps that only recompute prompts
    w = decode rows + prompt tokens + recomputed tokens, per output token

Host, links, `nothing` and `between` are pace x (fixed x s + work x w), too: `fixed` is what a step of its mode costs
whatever is in it, fitted to both cells at once (work_shapes.py), which is how fewer rows per step make tokens dearer.
`unhidden` is the share of the work that could have run beside other work and did not. Each cause owns some factors, see
`_rate`. Its term is its Shapley value: the mean, over all orders in which the causes could pass from the first cell to
the second, of what throughput changes when it is its turn. So the terms add up exactly, no order is preferred, swapping
the cells flips every sign, and a part may be 0 on either side. What the rows per step change is then dealt out by why
steps had no more of them (FewRows), to a cap, the host, memory and arrivals: in proportion to how many more such steps
per row the cell with fewer rows per step has.

What it is not: a counterfactual run. A scheduler that answers one change by another shows both; `speeds`, seconds per
byte of every operator, says what became slower by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from enum import StrEnum
from itertools import product
from math import factorial
from pathlib import Path

import numpy as np

from results.operator_rows import OperatorRow
from results.throughput_factors import Side, attention_share, sides
from results.window_steps import WindowSteps, read_pair


class Cause(StrEnum):
    """In the order in which they are shown: the load, the work, the units, the loop around them."""

    ARRIVALS = "arrivals"
    BATCH = "batch cap"
    MEMORY = "KV memory"
    PREEMPTION = "preemption"
    WORK = "work per token"
    MODES = "modes"
    LINEAR = "accelerator, matrices"
    ATTENTION = "accelerator, attention"
    HOST = "host"
    LINKS = "transfers"
    BUBBLES = "bubbles"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, slots=True)
class Meaning:
    """`measure`: what is shown of both cells beside the term."""

    says: str
    measure: str


MEANINGS = {
    Cause.ARRIVALS: Meaning(
        "time without any request; and fewer rows per step where every request was aboard",
        "share of time without requests",
    ),
    Cause.BATCH: Meaning(
        "fewer rows per step although requests waited: as many requests, or tokens, as a step may have",
        "decode rows per step",
    ),
    Cause.MEMORY: Meaning(
        "fewer rows per step although requests waited and more were allowed: no room for their KV",
        "decode rows per step",
    ),
    Cause.PREEMPTION: Meaning(
        "tokens computed again after a preemption, and steps that did nothing else",
        "recomputed tokens per output token",
    ),
    Cause.WORK: Meaning(
        "more prompt tokens per output token, longer contexts, larger chunks",
        "prompt tokens per output token, recomputed ones apart",
    ),
    Cause.MODES: Meaning(
        "modes whose steps cost the accelerator more whatever is in them: two batches read the weights twice",
        "fixed accelerator seconds per step",
    ),
    Cause.LINEAR: Meaning("matrices on the accelerator, at equal rows", "seconds per step"),
    Cause.ATTENTION: Meaning("attention on the accelerator, at equal KV", "seconds per step"),
    Cause.HOST: Meaning(
        "what the host was busy for beyond the accelerator or beside nothing; fewer rows per step where requests were "
        "left out with KV on the host; what its cohorts deliver",
        "seconds per step that nothing hid",
    ),
    Cause.LINKS: Meaning(
        "what links and disk were busy for beyond the others or beside nothing: slower, or more bytes",
        "seconds per step that nothing hid",
    ),
    Cause.BUBBLES: Meaning(
        "less work hidden behind the busiest unit, and time of a step in which no unit was busy",
        "share of hideable work that was not hidden",
    ),
    Cause.SCHEDULER: Meaning("time between steps with a request in the system", "seconds between steps"),
}
FORMULA = (
    "1 / throughput = seconds per output token = Σ over what the window was spent on, each a product of factors; a "
    "cause's term is the Shapley value of its factors"
)
REASONS = (Cause.BATCH, Cause.HOST, Cause.MEMORY, Cause.ARRIVALS)  # in the order of FewRows
_LEAST_SPEED_CHANGE = 0.02
_LEAST_BUSY_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Term:
    """`tokens_per_s` of the change, `share` of it (None: nothing changed). `before` and `after` are of `measure`."""

    cause: Cause
    tokens_per_s: float
    share: float | None
    measure: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Speed:
    """One operator: seconds per byte after over before (per op where it carries none)."""

    operator: str
    unit: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Waterfall:
    """`window`: plateau or whole run. `speeds` are those that changed, the furthest first."""

    before: float
    after: float
    window: str
    terms: tuple[Term, ...]
    speeds: tuple[Speed, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def largest(self) -> Term:
        """Of those that point the way of the change."""
        sign = 1 if self.change >= 0 else -1
        return max(self.terms, key=lambda term: sign * term.tokens_per_s)

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "change": self.change, "largest": self.largest.cause}


def explain_change(before: Path, after: Path) -> Waterfall:
    """Two cell folders of one engine and workload. ResultsError where one has no throughput or no steps."""
    cells = read_pair(before, after)
    factors = sides(cells)
    values = _shapley(factors, any(cell.has_cohorts for cell in cells))
    _deal_out_rows(values, cells, factors)
    change = cells[1].rate - cells[0].rate
    was, became = map(_measured, cells, factors)
    known = all(cell.summary.operators for cell in cells)
    return Waterfall(
        before=cells[0].rate,
        after=cells[1].rate,
        window=cells[0].kind,
        terms=tuple(
            Term(
                cause, values[cause], _share(values[cause], change), MEANINGS[cause].measure, was[cause], became[cause]
            )
            for cause in Cause
        ),
        speeds=_speeds(cells[0].summary.operators, cells[1].summary.operators),
        notes=() if known else (f"operators are unknown: {Cause.LINEAR} has attention as well",),
    )


def mean_of(waterfalls: Sequence[Waterfall]) -> Waterfall:
    """Of several pairs: means of means, whose terms add up to the mean change. Speeds by their geometric mean."""
    if not waterfalls:
        raise ValueError("a mean needs at least one waterfall")
    before, after = (float(np.mean([getattr(each, side) for each in waterfalls])) for side in ("before", "after"))
    terms = []
    for same in zip(*(each.terms for each in waterfalls), strict=True):
        figures = (
            float(np.mean([getattr(term, name) for term in same])) for name in ("tokens_per_s", "before", "after")
        )
        value, was, became = figures
        terms.append(Term(same[0].cause, value, _share(value, after - before), same[0].measure, was, became))
    windows = dict.fromkeys(each.window for each in waterfalls)
    notes = dict.fromkeys(note for each in waterfalls for note in each.notes)
    return Waterfall(before, after, ", ".join(windows), tuple(terms), _mean_speeds(waterfalls), tuple(notes))


def _mean_speeds(waterfalls: Sequence[Waterfall]) -> tuple[Speed, ...]:
    found: dict[tuple[str, str], list[float]] = {}
    for each in waterfalls:
        for speed in each.speeds:
            found.setdefault((speed.operator, speed.unit), []).append(float(np.log(speed.ratio)))
    means = [Speed(*key, float(np.exp(sum(logs) / len(waterfalls)))) for key, logs in found.items()]
    return tuple(sorted(means, key=lambda speed: -abs(np.log(speed.ratio))))


def _share(value: float, change: float) -> float | None:
    return value / change if change else None


# --- whose turn it is -------------------------------------------------------------------------------------------------


def _shapley(factors: tuple[Side, Side], has_cohorts: bool) -> dict[Cause, float]:
    """Over all sets of causes that may have gone to the second cell before."""
    causes = tuple(cause for cause in Cause if cause is not Cause.MEMORY)  # it owns no factor
    rates = {
        gone: _rate(dict(zip(causes, (factors[at] for at in gone), strict=True)), has_cohorts)
        for gone in product((0, 1), repeat=len(causes))
    }
    orders = [factorial(k) * factorial(len(causes) - k - 1) / factorial(len(causes)) for k in range(len(causes))]
    values = dict.fromkeys(Cause, 0.0)
    for gone, rate in rates.items():
        others = sum(gone)
        for at, cause in enumerate(causes):
            if not gone[at]:
                values[cause] += orders[others] * (rates[(*gone[:at], 1, *gone[at + 1 :])] - rate)
    return values


def _deal_out_rows(
    values: dict[Cause, float], cells: tuple[WindowSteps, WindowSteps], sides: tuple[Side, Side]
) -> None:
    """By the reasons of which the side with fewer rows per step has more steps per row than the other."""
    per_row = [
        np.array(astuple(cell.fewer_because)) / (side.rows * cell.tokens)
        for cell, side in zip(cells, sides, strict=True)
    ]
    fewer = 0 if sides[0].steps_per_row > sides[1].steps_per_row else 1
    more = np.maximum(per_row[fewer] - per_row[1 - fewer], 0.0)
    rows = values[Cause.BATCH]
    values[Cause.BATCH] = 0.0
    shares = more / more.sum() if more.sum() > 0 else np.array([1.0, 0.0, 0.0, 0.0])
    for cause, share in zip(REASONS, shares, strict=True):
        values[cause] += float(share) * rows


def _rate(of: Mapping[Cause, Side], has_cohorts: bool) -> float:
    """Tokens per second, every factor taken from the side that its cause is on."""
    rows = of[Cause.HOST if has_cohorts else Cause.WORK].rows
    again = of[Cause.PREEMPTION]
    steps = of[Cause.BATCH].steps_per_row * rows + again.steps_again
    worked = rows + of[Cause.WORK].prompt + again.again
    host, links, bubbles = of[Cause.HOST], of[Cause.LINKS], of[Cause.BUBBLES]
    linear, attention = of[Cause.LINEAR].linear, of[Cause.ATTENTION].attention
    modes, work = of[Cause.MODES], of[Cause.WORK]
    hideable_s = host.host_hideable.seconds(steps, worked) + links.link_hideable.seconds(steps, worked)
    return 1 / (
        of[Cause.ARRIVALS].empty_s
        + linear.pace * (modes.linear.fixed * steps + work.linear.work * worked)
        + attention.pace * (modes.attention.fixed * steps + work.attention.work * worked)
        + host.host_excess.seconds(steps, worked)
        + links.link_excess.seconds(steps, worked)
        + bubbles.unhidden * hideable_s
        + bubbles.nothing.seconds(steps, worked)
        + of[Cause.SCHEDULER].between.seconds(steps, worked)
    )


# --- what is shown beside the terms -----------------------------------------------------------------------------------


def _measured(cell: WindowSteps, side: Side) -> dict[Cause, float]:
    parts, steps = cell.parts, cell.steps
    share, busy_s = attention_share(cell.summary.operators), float(cell.parts.accelerator.sum())
    host_s = float(parts.host_excess.sum() + parts.unhidden * parts.host_hideable.sum())
    links_s = float(parts.link_excess.sum() + parts.unhidden * parts.link_hideable.sum())
    return {
        Cause.ARRIVALS: cell.empty_s / cell.length_s,
        Cause.BATCH: cell.decode_rows / steps,
        Cause.MEMORY: cell.decode_rows / steps,
        Cause.PREEMPTION: side.again,
        Cause.WORK: side.prompt,
        Cause.MODES: side.linear.fixed + side.attention.fixed,
        Cause.LINEAR: (1 - share) * busy_s / steps,
        Cause.ATTENTION: share * busy_s / steps,
        Cause.HOST: host_s / steps,
        Cause.LINKS: links_s / steps,
        Cause.BUBBLES: parts.unhidden,
        Cause.SCHEDULER: float(parts.gap.sum()) / steps,
    }


def _speeds(before: Sequence[OperatorRow], after: Sequence[OperatorRow]) -> tuple[Speed, ...]:
    """Of operators that took a share worth naming on either side."""
    was, became = ({(row.operator, row.unit): row for row in rows} for rows in (before, after))
    least = [_LEAST_BUSY_SHARE * sum(row.seconds for row in rows) for rows in (before, after)]
    found = []
    for key in was.keys() & became.keys():
        a, b = was[key], became[key]
        if min(a.seconds, b.seconds) <= 0 or (a.seconds < least[0] and b.seconds < least[1]):
            continue
        amounts = (a.bytes, b.bytes) if min(a.bytes, b.bytes) > 0 else (a.ops, b.ops)
        ratio = (b.seconds / amounts[1]) / (a.seconds / amounts[0])
        if abs(np.log(ratio)) >= _LEAST_SPEED_CHANGE:
            found.append(Speed(*key, ratio))
    return tuple(sorted(found, key=lambda speed: (-abs(np.log(speed.ratio)), speed.operator, speed.unit)))
