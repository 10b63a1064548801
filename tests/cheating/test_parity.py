"""Which requests are checked, by what rule a token is the oracle's, and what is said when nothing was checked."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.oracle import Opinion
from harness.parity import MOST_TOKENS, Difference, Sample, check, choose, verdict, write_answers
from harness.plan import CellSpec, expand
from results.parity_check import ParityCheck
from tests.cheating.conftest import EMULATED, experiment
from workloads import Request

PROMPT = list(range(10, 30))
BEST = [31, 32, 33, 34]
Ask = Callable[..., ParityCheck]  # what the rules say of answers that are so far behind where they differ


@pytest.fixture
def spec() -> CellSpec:
    return expand(experiment(EMULATED, "gpu_only"), "cpu")[0]


def requests(count: int, prompt: int = 20, output: int = 10) -> list[Request]:
    return [Request(number, 0.0, prompt, output) for number in range(count)]


# --- which ------------------------------------------------------------------------------------------------------------


def test_all_timed_requests_when_they_are_few(spec: CellSpec) -> None:
    sample = choose(spec, requests(12), True)
    assert sample == Sample(frozenset(range(2, 12)), 10)


def test_an_even_sample_of_many(spec: CellSpec) -> None:
    sample = choose(spec, requests(642), True)
    chosen = sorted(sample.request_ids)
    assert (len(chosen), sample.timed) == (64, 640)
    assert {later - earlier for earlier, later in pairwise(chosen)} == {10}
    assert min(chosen) >= 2, "warm-up is not timed"
    assert choose(spec, requests(642), True) == sample


def test_long_answers_are_checked_whole_or_not_at_all(spec: CellSpec) -> None:
    sample = choose(spec, requests(100, output=3000), True)
    assert len(sample.request_ids) == MOST_TOKENS // 3000
    assert choose(spec, requests(100, output=9000), True).why_none == "every request is too long for tiny-1m to check"


def test_fewer_are_checked_where_16_bit_is_slow_but_one_at_least(
    spec: CellSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = replace(spec, model="llama-0.5b", dtype="bfloat16")  # 1 GFLOP per token, so 500 tokens are in the limit

    def checked(capability: str, output: int) -> int:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        return len(choose(half, requests(12, prompt=10, output=output), True).request_ids)

    assert checked("AVX512", 10) == 10
    assert checked("AVX2", 10) in (4, 5)
    assert checked("AVX2", 400) == 1


@pytest.mark.parametrize(
    ("changes", "has_prompts", "note"),
    [
        ({"backend": "sim"}, False, "not checked: simulated: no tokens"),
        ({}, False, "not checked: this engine runs no model: no tokens"),
        (
            {"model": "llama-2-7b"},
            True,
            "not checked: llama-2-7b has 25.1 GiB of weights, more than the 2.0 GiB up to which it is done",
        ),
    ],
)
def test_what_is_not_checked_says_why(spec: CellSpec, changes: dict[str, str], has_prompts: bool, note: str) -> None:
    spec = replace(spec, **changes)  # type: ignore[arg-type]
    sample = choose(spec, requests(12), has_prompts)
    found = check(spec, sample, {}, {})
    assert (found.checked_requests, found.held, found.note) == (0, None, note)


def test_no_answer_to_check(spec: CellSpec) -> None:
    found = check(spec, choose(spec, requests(12), True), {}, {})
    assert found.note == "not checked: none of the requests chosen for it was answered"


# --- by what rule -----------------------------------------------------------------------------------------------------


class FakeOracle:
    """Says BEST after every prompt; `deficits` are those of tokens that differ from it."""

    def __init__(self, deficit: float, bound: float = 0.01) -> None:
        self._deficit, self._bound = deficit, bound

    def opinion(self, prompt: Sequence[int], answer: Sequence[int]) -> Opinion:
        best = BEST[: len(answer)]
        return Opinion(best, [0.0 if a == b else self._deficit for a, b in zip(answer, best, strict=True)])

    def bound(self, texts: Sequence[Sequence[int]]) -> float:
        return self._bound


@pytest.fixture
def ask(spec: CellSpec, monkeypatch: pytest.MonkeyPatch) -> Ask:
    def with_deficit(deficit: float, *answers: Sequence[int], dtype: str = "float32") -> ParityCheck:
        @contextmanager
        def oracle_for(_: CellSpec) -> Iterator[FakeOracle]:
            yield FakeOracle(deficit)

        monkeypatch.setattr("harness.oracle.oracle_for", oracle_for)
        kept = dict(enumerate(answers))
        sample = Sample(frozenset(kept), 50)
        return check(replace(spec, dtype=dtype), sample, dict.fromkeys(kept, PROMPT), kept)  # type: ignore[arg-type]

    return with_deficit


def test_equal_tokens_hold(ask: Ask) -> None:
    found = ask(1.0, BEST, BEST[:2])
    assert (found.checked_requests, found.checked_tokens, found.excused, found.held) == (2, 6, 0, True)
    assert found.note == "6 tokens of 2 of 50 timed requests are those of transformers, 0 near-ties excused"


def test_a_wrong_token_does_not(ask: Ask) -> None:
    found = ask(0.25, BEST, [31, 32, 99, 34], [31, 99])
    assert (found.checked_tokens, found.held) == (4 + 3 + 2, False)
    assert found.note == (
        "request 1 at position 2 of its answer has token 99, transformers has 33 ahead by 0.25 standard deviations; "
        "2 of 3 checked requests differ (50 were timed)"
    )


@pytest.mark.parametrize("token", [-1, 1024, None, 3.5, "a"])
def test_what_is_no_token_is_wrong(ask: Ask, token: object) -> None:
    found = ask(0.25, [31, 32, token, 34])
    assert found.held is False
    assert f"request 0 at position 2 of its answer has {token!r}, which is no token of the model" in found.note


def test_a_near_tie_is_excused_and_ends_the_request(ask: Ask) -> None:
    found = ask(5e-5, BEST, [31, 99, 98, 97])
    assert (found.checked_tokens, found.excused, found.held) == (6, 1, True)
    assert found.note.endswith("1 near-ties excused")


def test_many_near_ties_are_no_chance(ask: Ask) -> None:
    found = ask(5e-5, BEST, [31, 99, 33, 34], [99])
    assert (found.excused, found.held) == (2, False)
    assert "2 of 3 checked requests differ within rounding, noise explains fewer" in found.note


def test_one_in_a_thousand_is_excused() -> None:
    near = [Difference(number, 0, 1, 2, 1e-5) for number in range(4)]
    assert verdict(3000, 3000, 9000, near[:3], None).held
    assert not verdict(3000, 3000, 9000, near, None).held


def test_16_bit_goes_by_the_logits(ask: Ask) -> None:
    within = ask(0.049, BEST, [31, 99, 33, 98], dtype="bfloat16")
    assert (within.checked_tokens, within.excused, within.held) == (8, 0, True)
    assert "within 0.05 standard deviations of its best" in within.note
    beyond = ask(0.051, BEST, [31, 99, 33, 98], dtype="bfloat16")
    assert beyond.held is False
    assert "request 1 at position 1" in beyond.note


def test_an_oracle_that_fails_costs_a_note(spec: CellSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: CellSpec) -> None:
        raise RuntimeError("no transformers today")

    monkeypatch.setattr("harness.oracle.oracle_for", broken)
    found = check(spec, Sample(frozenset({0}), 1), {0: PROMPT}, {0: BEST})
    assert (found.held, found.note) == (None, "not checked: transformers failed: RuntimeError: no transformers today")


# --- against transformers itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_tokens_of_the_oracle_hold_and_others_do_not(spec: CellSpec, dtype: str) -> None:
    from harness.oracle import oracle_for

    spec = replace(spec, dtype=dtype)  # type: ignore[arg-type]
    answer: list[int] = []
    with oracle_for(spec) as oracle:
        for _ in range(6):
            answer.append(oracle.opinion(PROMPT, [*answer, 0]).best[-1])
    sample, prompts = Sample(frozenset({4}), 1), {4: PROMPT}
    assert check(spec, sample, prompts, {4: answer}).held
    worse = [*answer[:3], (answer[3] + 1) % 1024, *answer[4:]]
    found = check(spec, sample, prompts, {4: worse})
    assert found.held is False
    assert "request 4 at position 3" in found.note


def test_what_was_kept_is_written_for_others_to_check(tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl.gz"
    write_answers(path, {1: PROMPT, 0: [5]}, {1: np.array(BEST), 0: [6, 7]})  # type: ignore[dict-item]
    first = path.read_bytes()
    lines = [json.loads(line) for line in gzip.decompress(first).decode().splitlines()]
    assert lines == [
        {"request_id": 0, "prompt_token_ids": [5], "token_ids": [6, 7]},
        {"request_id": 1, "prompt_token_ids": PROMPT, "token_ids": BEST},
    ]
    write_answers(path, {1: PROMPT, 0: [5]}, {1: BEST, 0: [6, 7]})
    assert path.read_bytes() == first
