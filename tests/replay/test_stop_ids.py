"""Where a token may end a request, content decides: then the journal holds the tokens, and replays by them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.core.clock import MonotonicClock
from engines.core.types import Limits
from harness.adapter import CoreAdapter
from harness.build import core_for
from harness.generate import Prompt, run_offline, specification
from harness.journal import Journal, replay
from harness.plan import CellSpec
from harness.real import open_model, torch_executor
from tests.model_folders import make_folder
from tests.replay.forgery import Lines, lines_of, rewrite

NEW_TOKENS = 40
PROMPTS = [Prompt(index, tuple(range(3 + index, 23 + 2 * index))) for index in range(10)]


@dataclass(frozen=True)
class Stopped:
    spec: CellSpec
    journal: Path
    stop_id: int
    answers: list[list[int]]
    preemptions: int


def serve(spec: CellSpec, journal: Path, stop_ids: frozenset[int]) -> tuple[list[list[int]], int]:
    """A cell's parts without a workload: core, executor and journal behind the adapter."""
    core = core_for(spec)
    model = open_model(spec.model, spec.dtype, "cpu", 0, 200, 0)
    limits = Limits(spec.budget.max_batch, spec.budget.max_batch_tokens)
    executor, resolved = torch_executor(model, core.capabilities, core.placement, limits, MonotonicClock(), None, "cpu")
    adapter = CoreAdapter(core, executor, resolved, Journal(journal))
    answers = run_offline(adapter, PROMPTS, NEW_TOKENS, stop_ids)
    adapter.close()
    return answers


@pytest.fixture(scope="module")
def stopped(model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    options = {
        "dtype": "float32",
        "max_batch": 8,
        "max_batch_tokens": 32,
        "accel_kv_tokens": 160,
        "seed": 0,
        "emulation": "native",
        "policy_options": {},
    }
    spec = specification("gpu_only", "cpu", str(make_folder(model_root)), options)
    folder = tmp_path_factory.mktemp("journals")
    full, _ = serve(spec, folder / "full.gz", frozenset())
    [(stop_id, _)] = Counter(token for answer in full for token in answer[5:30]).most_common(1)
    answers, preemptions = serve(spec, folder / "stopped.gz", frozenset({stop_id}))
    expected = [answer[: answer.index(stop_id) + 1] if stop_id in answer else answer for answer in full]
    assert answers == expected, "a stop token ends its request, and changes nothing before"
    return Stopped(spec, folder / "stopped.gz", stop_id, answers, preemptions)


def test_the_run_is_worth_replaying(stopped: Stopped) -> None:
    assert stopped.preemptions > 0
    early = [answer for answer in stopped.answers if len(answer) < NEW_TOKENS]
    assert early
    assert all(answer[-1] == stopped.stop_id for answer in early)


def test_the_journal_holds_the_tokens_and_replays(stopped: Stopped) -> None:
    steps = [line for line in lines_of(stopped.journal) if "plan" in line]
    assert sum(len(line["tokens"]) for line in steps) == sum(map(len, stopped.answers))
    core = core_for(stopped.spec)
    replayed = replay(stopped.journal, core)
    assert replayed.first_difference is None
    assert replayed.steps == len(steps)
    assert not core.has_work


def test_a_forged_token_is_noticed(stopped: Stopped, tmp_path: Path) -> None:
    """The stop token of an answer replaced: its request goes on where the recorded one had ended."""

    def tamper(lines: Lines) -> None:
        line = next(line for line in lines if stopped.stop_id in line.get("tokens", ()))
        line["tokens"][line["tokens"].index(stopped.stop_id)] += 1

    assert replay(rewrite(stopped.journal, tmp_path / "forged.gz", tamper), core_for(stopped.spec)).first_difference


def test_a_forgotten_stop_id_is_noticed(stopped: Stopped, tmp_path: Path) -> None:
    def tamper(lines: Lines) -> None:
        for line in lines:
            if "stop" in line:
                line["stop"] = []

    assert replay(rewrite(stopped.journal, tmp_path / "forged.gz", tamper), core_for(stopped.spec)).first_difference
