"""Whether the tokens that were timed are the model's: an engine that answers wrongly has no throughput.

A sample of the timed requests is kept (`choose`), written down (`write_answers`) and, when serving is over, held
against transformers (`check`). float32: every token is the oracle's own, or the first that is not lies within rounding
of it; that is counted as excused, and ends what is checked of its request. 16 bit: two batchings of one engine already
differ, and tokens alone do not show the logits they came from; there the gate is that the oracle's logit of each token
lies within `logit_bound` of its largest. A root mean square over the vocabulary bounds no single pair of logits, so
that it counts `BOUND_FACTOR` times: honest runs of ours reached 2.6 times.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from engines.model.config import load_config
from harness.costs import DTYPE_BYTES
from harness.placed_sizing import placed_room
from harness.plan import CellSpec
from harness.sizes import format_bytes
from results.files import write_bytes
from results.parity_check import ParityCheck
from workloads import Request

if TYPE_CHECKING:
    from harness.oracle import Oracle

MOST_REQUESTS = 64
MOST_TOKENS = 8192
# Some ten seconds; of large models fewer requests are checked.
MOST_FLOPS = {"cpu": 5e11, "endpoint": 5e11, "cuda": 2e13}
# By how much a CPU without 16-bit instructions takes longer. Still, one request is worth the full time.
SLOW_HALVES = 5
MOST_WEIGHT_BYTES = 2 << 30
MEMORY_COPIES = 3  # the weights as drawn, as written and as transformers holds them

EXCUSED_GAP = 1e-4  # of the logits' standard deviation
EXCUSED_SHARE = 1e-3  # of the requests, but one at least: no cell has the 1,000 requests that would allow the first
BOUND_FACTOR = 5.0

Prompts = Mapping[int, Sequence[int]]
Answers = Mapping[int, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """Which requests' tokens are kept, of how many that are timed. Without any, `why_none` says why."""

    request_ids: frozenset[int]
    timed: int
    why_none: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first token of a request that is not the oracle's."""

    request_id: int
    position: int  # in the answer, from 0
    given: object
    best: int | None  # None where what was given is no token of the model
    deficit: float  # in standard deviations of the step's logits

    def __str__(self) -> str:
        where = f"request {self.request_id} at position {self.position} of its answer"
        if self.best is None:
            return f"{where} has {self.given!r}, which is no token of the model"
        lead = f"{self.deficit:.2g} standard deviations"
        return f"{where} has token {self.given}, transformers has {self.best} ahead by {lead}"


# --- before serving ---------------------------------------------------------------------------------------------------


def choose(spec: CellSpec, requests: Sequence[Request], has_prompts: bool, no_token_ids: str = "") -> Sample:
    """As many timed requests as the bounds allow, spread evenly over the run, with all of their tokens.

    `no_token_ids`: why the engine hands over tokens without their ids, where it does.
    """
    timed = requests[spec.measure.warmup_requests :]
    why_none = _why_none(spec, has_prompts) or no_token_ids
    if why_none:
        return Sample(frozenset(), len(timed), why_none)
    most_fed = MOST_FLOPS[spec.backend] / (2 * load_config(spec.model).parameters)
    slowed = SLOW_HALVES if _is_slow(spec) else 1
    for count in range(min(MOST_REQUESTS, len(timed)), 0, -1):
        chosen = [timed[(2 * index + 1) * len(timed) // (2 * count)] for index in range(count)]
        generated = sum(request.output_tokens for request in chosen)
        fed = generated + sum(request.prompt_tokens for request in chosen)
        if generated <= MOST_TOKENS and fed <= most_fed / (slowed if count > 1 else 1):
            return Sample(frozenset(request.request_id for request in chosen), len(timed))
    why_none = "there are no timed requests" if not timed else f"every request is too long for {spec.model} to check"
    return Sample(frozenset(), len(timed), why_none)


def _is_slow(spec: CellSpec) -> bool:
    if spec.dtype == "float32" or spec.backend == "cuda":
        return False
    from harness.oracle import halves_are_slow
    from harness.real import DTYPES

    return halves_are_slow(DTYPES[spec.dtype])


def _why_none(spec: CellSpec, has_prompts: bool) -> str:
    if spec.backend == "sim":
        return "simulated: no tokens"
    if not has_prompts:
        return "this engine runs no model: no tokens"
    if spec.backend == "endpoint" and not Path(spec.model).is_dir():
        return f"{spec.model} is a shape: which weights are behind the endpoint is not known"
    placed = placed_room(spec)
    if placed is not None and placed[1].compressed_weights:
        return "weights and KV are in 4 bit: its answers are those of other weights"
    weights = load_config(spec.model).weight_bytes(DTYPE_BYTES[spec.dtype])
    if weights > MOST_WEIGHT_BYTES:
        most = format_bytes(MOST_WEIGHT_BYTES)
        return f"{spec.model} has {format_bytes(weights)} of weights, more than the {most} up to which it is done"
    return ""


# --- after serving ----------------------------------------------------------------------------------------------------


def write_answers(path: Path, prompts: Prompts, answers: Answers) -> None:
    """One JSON object per request and line, so that anybody can check them again; equal runs give equal bytes."""
    lines = (
        json.dumps(
            {
                "request_id": request_id,
                "prompt_token_ids": list(prompts[request_id]),
                "token_ids": list(answers[request_id]),
            },
            default=_plain,
        )
        for request_id in sorted(answers)
    )
    write_bytes(path, gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))


def _plain(token: object) -> object:
    """Engines hand over numpy's integers, too, and what is no token has to be seen."""
    return int(token) if isinstance(token, Integral) else str(token)


def check(spec: CellSpec, sample: Sample, prompts: Prompts, answers: Answers) -> ParityCheck:
    """Never raises: an oracle that cannot be asked is a note, not the loss of the cell."""
    if not sample.request_ids:
        return ParityCheck(note=f"not checked: {sample.why_none}")
    if not answers:
        return ParityCheck(note="not checked: none of the requests chosen for it was answered")
    weights = load_config(spec.model).weight_bytes(DTYPE_BYTES[spec.dtype])
    if MEMORY_COPIES * weights > psutil.virtual_memory().available:
        return ParityCheck(note=f"not checked: not enough free memory to load {format_bytes(weights)} of weights again")
    try:
        from harness.oracle import oracle_for

        with oracle_for(spec) as oracle:
            return _judge(spec, oracle, sample, prompts, answers)
    except Exception as error:
        return ParityCheck(note=f"not checked: transformers failed: {type(error).__name__}: {error}")


def _judge(spec: CellSpec, oracle: Oracle, sample: Sample, prompts: Prompts, answers: Answers) -> ParityCheck:
    vocabulary = load_config(spec.model).vocab_size
    known = {request_id: _known(answers[request_id], vocabulary) for request_id in sorted(answers)}
    bound = None
    if spec.dtype != "float32":
        bound = BOUND_FACTOR * oracle.bound([[*prompts[request_id], *tokens] for request_id, tokens in known.items()])
    checked, differences = 0, []
    for request_id, tokens in known.items():
        found = _first_difference(oracle, request_id, prompts[request_id], tokens, bound or 0.0)
        if found is None and len(tokens) < len(answers[request_id]):
            found = Difference(request_id, len(tokens), answers[request_id][len(tokens)], None, math.inf)
        checked += len(tokens) if found is None else found.position + 1
        differences += [found] if found else []
    return verdict(len(answers), sample.timed, checked, differences, bound)


def _known(answer: Sequence[object], vocabulary: int) -> list[int]:
    """The answer up to the first thing in it that is no token of the model."""
    tokens = []
    for token in answer:
        if not isinstance(token, Integral) or not 0 <= int(token) < vocabulary:
            break
        tokens.append(int(token))
    return tokens


def _first_difference(
    oracle: Oracle, request_id: int, prompt: Sequence[int], tokens: Sequence[int], limit: float
) -> Difference | None:
    """The first token that is further than `limit` behind the oracle's own."""
    if not tokens:
        return None
    opinion = oracle.opinion(prompt, tokens)
    for position, (token, best, deficit) in enumerate(zip(tokens, opinion.best, opinion.deficits, strict=True)):
        if token != best and not deficit <= limit:
            return Difference(request_id, position, token, best, deficit)
    return None


def verdict(
    requests: int, timed: int, tokens: int, differences: Sequence[Difference], bound: float | None
) -> ParityCheck:
    """`bound`: of 16-bit types, whose differences are beyond it already and are not excused."""
    excused = [each for each in differences if bound is None and each.deficit < EXCUSED_GAP]
    wrong = [each for each in differences if each not in excused]
    too_many = len(excused) > max(1, EXCUSED_SHARE * requests)
    if wrong:
        note = f"{wrong[0]}; {len(wrong)} of {requests} checked requests differ ({timed} were timed)"
    elif too_many:
        note = (
            f"{excused[0]}; {len(excused)} of {requests} checked requests differ within rounding, noise explains fewer"
        )
    else:
        rule = "those of transformers" if bound is None else f"within {bound:.2g} standard deviations of its best"
        note = f"{tokens:,} tokens of {requests} of {timed} timed requests are {rule}, {len(excused)} near-ties excused"
    return ParityCheck(requests, tokens, len(excused), not wrong and not too_many, note)
