"""Every engine's tokens are transformers' own, whatever was chunked, preempted, swapped or recomputed on the way.

The oracle is transformers in float32 on the same folder, request by request. The last test proves that the others can
see: losing any one KV block changes what comes out.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engines.backends.torch_backend import TorchExecutor
from engines.core.adapter import Submission
from engines.core.reuse import LongestFreeFirst, Place
from engines.core.stretch import Stretch
from engines.core.types import Tier
from engines.model.config import load_config
from engines.model.reference import OracleRun, Parity, compare, greedy
from harness.adapter import CoreAdapter, StepSight
from harness.build import offline_adapter
from harness.generate import Prompt, run_offline, specification
from tests.model_folders import make_folder


@dataclass(frozen=True)
class Budget:
    name: str
    max_batch: int
    max_batch_tokens: int
    accel_kv_tokens: int
    policy: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Load:
    """Prompts, how much each answers, and what the oracle says."""

    prompts: list[Prompt]
    new_tokens: int
    oracle: list[OracleRun]


MIXED_LENGTHS = (1, 2, 15, 16, 17, 33, 64, 100, 129, 255, 256, 300, 411, 600)
LONG_ANSWER_LENGTHS = (1, 2, 3, 5, 8, 9, 12, 14, 15, 16, 17, 18, 21, 24, 27, 29, 31, 32, 33, 34, 36, 38, 39, 40)

ROOMY = (
    Budget("roomy", 32, 2048, 8192),
    Budget("small_chunks", 32, 37, 8192),
    Budget("one_at_a_time", 1, 64, 1024),
    Budget("few_blocks", 16, 256, 640),
)
STARVED = (
    Budget("recompute", 12, 256, 208),
    Budget("recompute_small_chunks", 12, 24, 208),
    Budget("swap", 12, 256, 208, (("preemption", "swap"),)),
    Budget("swap_small_chunks", 12, 24, 208, (("preemption", "swap"),)),
    Budget("admit_by_chunk", 12, 48, 208, (("admit", "chunk"),)),
)
KEEP = ("keep_preempted_kv", True)
KEEPING = (
    Budget("keep", 12, 256, 208, (KEEP,)),
    Budget("keep_small_chunks", 12, 24, 208, (KEEP,)),
    Budget("keep_by_chunk", 12, 48, 208, (KEEP, ("admit", "chunk"))),
)


MODELS: dict[str, dict[str, Any]] = {"mha": {}, "gqa": {"kv_heads": 2}, "opt": {"family": "opt"}}


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, model_root: Path) -> Path:
    return make_folder(model_root, **MODELS[request.param])


@cache
def load(folder: Path, lengths: tuple[int, ...], new_tokens: int) -> Load:
    """Once a process: the oracle takes as long as most tests."""
    vocabulary = load_config(folder).vocab_size
    draw = random.Random(7)
    prompts = [
        Prompt(index, tuple(draw.randrange(3, vocabulary) for _ in range(length)))
        for index, length in enumerate(lengths)
    ]
    return Load(prompts, new_tokens, greedy(folder, [prompt.token_ids for prompt in prompts], new_tokens))


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Load:
    return load(folder, MIXED_LENGTHS, 24)


@pytest.fixture(scope="module")
def long_answers(folder: Path) -> Load:
    return load(folder, LONG_ANSWER_LENGTHS, 96)


def open_adapter(folder: Path, budget: Budget, engine: str = "gpu_only") -> CoreAdapter:
    options: dict[str, Any] = {
        "dtype": "float32",
        "max_batch": budget.max_batch,
        "max_batch_tokens": budget.max_batch_tokens,
        "accel_kv_tokens": budget.accel_kv_tokens,
        "seed": 0,
        "emulation": "native",
        "policy_options": dict(budget.policy),
    }
    adapter = offline_adapter(specification(engine, "cpu", str(folder), options), 700)
    assert isinstance(adapter, CoreAdapter)
    return adapter


class Found:
    """Counts the tokens that preempted requests found again."""

    tokens = 0

    def step(self, sight: StepSight) -> None:
        self.tokens += sight.plan.found_tokens

    def stretch(self, stretch: Stretch, scheduler_s: float) -> None:
        raise AssertionError("nothing real takes steps at once")


def judged(folder: Path, budget: Budget, load: Load, found: Found | None = None) -> tuple[Parity, int]:
    """Beside the oracle; and how often requests were preempted."""
    adapter = open_adapter(folder, budget)
    adapter._observers = [found] if found else []
    tokens, preemptions = run_offline(adapter, load.prompts, load.new_tokens, frozenset())
    adapter.close()
    assert len({token for answer in tokens for token in answer}) > 20, "the model says too little for this to mean much"
    return compare(tokens, load.oracle), preemptions


def generate(folder: Path, budget: Budget, load: Load, found: Found | None = None) -> int:
    """Asserts equality with the oracle; returns how often requests were preempted."""
    parity, preemptions = judged(folder, budget, load, found)
    assert not parity.differences, str(parity)
    return preemptions


@pytest.mark.parametrize("budget", ROOMY, ids=lambda budget: budget.name)
def test_greedy_tokens_equal_transformers(folder: Path, mixed: Load, budget: Budget) -> None:
    generate(folder, budget, mixed)


@pytest.mark.parametrize("budget", STARVED, ids=lambda budget: budget.name)
def test_preempted_requests_lose_nothing(folder: Path, long_answers: Load, budget: Budget) -> None:
    preemptions = generate(folder, budget, long_answers)
    assert preemptions >= 20, f"only {preemptions} preemptions: the budget starves nobody"


@pytest.mark.parametrize("budget", KEEPING, ids=lambda budget: budget.name)
def test_what_preempted_requests_find_again_is_theirs(folder: Path, long_answers: Load, budget: Budget) -> None:
    found = Found()
    preemptions = generate(folder, budget, long_answers, found)
    assert preemptions >= 20, f"only {preemptions} preemptions: the budget starves nobody"
    assert found.tokens >= 10 * 16, f"only {found.tokens} tokens found again"


class _NeverForgets(LongestFreeFirst):
    def __init__(self, blocks: Iterable[int]) -> None:
        super().__init__(blocks)
        self._ever: dict[int, Place] = {}

    def mark(self, block: int, place: Place) -> None:
        super().mark(block, place)
        self._ever[block] = place

    def holds(self, block: int, place: Place) -> bool:
        return block in set(self) and self._ever.get(block) == place


def test_finding_what_is_not_theirs_changes_the_tokens(
    folder: Path, long_answers: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof of the test above: blocks that are free, but were given to others in between."""
    monkeypatch.setattr("engines.core.reuse.LongestFreeFirst", _NeverForgets)
    parity, _ = judged(folder, KEEPING[0], long_answers)
    assert parity.differences


def test_losing_any_kv_block_changes_the_tokens(folder: Path, mixed: Load) -> None:
    """The proof of the tests above: zero one block of a request after its prefill, and its answer must differ."""
    longest = MIXED_LENGTHS.index(300)
    blocks = range(-(-MIXED_LENGTHS[longest] // 16))
    changed = 0
    for block in blocks:
        adapter = open_adapter(folder, ROOMY[0])
        tokens = _generate_losing(adapter, mixed.prompts[longest], mixed.new_tokens, block)
        changed += tokens != list(mixed.oracle[longest].token_ids)
        adapter.close()
    assert changed >= 0.95 * len(blocks), f"{changed} of {len(blocks)} lost blocks were noticed"


def _generate_losing(adapter: CoreAdapter, prompt: Prompt, new_tokens: int, lost: int) -> list[int]:
    executor = adapter._executor
    assert isinstance(executor, TorchExecutor)
    adapter.submit(Submission(0, len(prompt.token_ids), prompt.token_ids, new_tokens))
    tokens: list[int] = []
    while adapter.busy:
        delivery = adapter.poll(0.0)
        assert delivery is not None
        if not tokens and delivery.token_ids:
            block = adapter._core.running[0].blocks[lost]
            store = executor._stores[Tier.ACCEL]
            store.keys[:, block] = 0
            store.values[:, block] = 0
        tokens.extend(delivery.token_ids)
    return tokens
