"""Hybrid engines say what transformers says, whatever was offloaded, split, parked, waited for or left behind."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from engines.apex.attention import Pool, submit_decode_attention
from engines.backends.pacing import _NativePass
from engines.backends.torch_backend import TorchExecutor
from engines.core.adapter import Submission
from engines.core.roofline import Roofline
from engines.core.types import AWAITED, CohortPlan, Mode, StepPlan, StepResult, Tier
from engines.model.reference import compare
from harness.adapter import CoreAdapter
from harness.generate import run_offline
from tests.contract.test_token_exactness import (
    LONG_ANSWER_LENGTHS,
    MIXED_LENGTHS,
    Budget,
    Load,
    load,
    open_adapter,
)
from tests.core.worlds import MACHINE, MODEL
from tests.model_folders import make_folder

Options = tuple[tuple[str, object], ...]

# With nothing to predict by, a policy runs its mode as it is; with a table that thinks the host slow or fast it
# chooses.
ENGINES: dict[str, tuple[str, Options, bool]] = {
    "static_partition": ("static_partition", (("host_share", 0.5),), False),
    "all on the host": ("static_partition", (("host_share", 1.0),), False),
    "neo": ("neo", (), False),
    "neo, priced": ("neo", (), True),
    "apex": ("apex", (), False),
    "apex, predicted": ("apex", (), True),
    "apex, by the paper": ("apex", (("selector", "paper"),), True),
    "apex, gpu_only": ("apex", (("mode", "gpu_only"),), True),
    "apex, asymmetric": ("apex", (("mode", "asymmetric"),), True),
    "apex, async_overlap": ("apex", (("mode", "async_overlap"),), False),
    "apex, async_overlap, priced": ("apex", (("mode", "async_overlap"),), True),
    "apex, full_overlap": ("apex", (("mode", "full_overlap"),), True),
}
HEADS = {4: "mha", 2: "gqa"}  # heads of keys and values, and what that is called
STARVED = Budget("starved", 12, 256, 208)
STARVED_CHUNKS = Budget("starved, small chunks", 12, 24, 208)
TIGHT = Budget("tight", 8, 256, 640)


@dataclass
class Seen:
    """What an engine did while it answered."""

    modes: Counter[Mode] = field(default_factory=Counter)
    host_rows: int = 0
    flown: int = 0  # rows that came down with a cohort
    asked: Counter[bool] = field(default_factory=Counter)  # guards, by answer
    moves: int = 0

    def watch(self, adapter: CoreAdapter) -> None:
        run = adapter._executor.run

        def noted(plan: StepPlan) -> StepResult:
            result = run(plan)
            self.modes[plan.mode] += 1
            self.host_rows += sum(len(batch.host_slots) for batch in plan.batches)
            self.flown += sum(len(c.slots) for c in plan.cohorts if c.cohort in result.finished_cohorts)
            self.asked.update(answer.ready for answer in result.answers)
            self.moves += len(plan.moves)
            return result

        adapter._executor.run = noted  # type: ignore[method-assign]


def opened(folder: Path, budget: Budget, engine: str) -> CoreAdapter:
    kind, options, priced = ENGINES[engine]
    adapter = open_adapter(folder, replace(budget, policy=options), kind)
    if priced:
        adapter._core._predictor = Roofline(MODEL, MACHINE)
    return adapter


def answer(folder: Path, budget: Budget, work: Load, engine: str) -> Seen:
    adapter = opened(folder, budget, engine)
    seen = Seen()
    seen.watch(adapter)
    tokens, _ = run_offline(adapter, work.prompts, work.new_tokens, frozenset())
    adapter._core.check_integrity()
    adapter.close()
    parity = compare(tokens, work.oracle)
    assert not parity.differences, str(parity)
    return seen


@pytest.fixture(scope="module", params=HEADS, ids=HEADS.get)
def folder(request: pytest.FixtureRequest, model_root: Path) -> Path:
    return make_folder(model_root, kv_heads=request.param)


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Load:
    return load(folder, MIXED_LENGTHS, 24)


@pytest.fixture(scope="module")
def long_answers(folder: Path) -> Load:
    return load(folder, LONG_ANSWER_LENGTHS, 48)


# Every engine with either budget and either kind of heads, and those with each other, but not all three: how many
# heads share keys is the kernels' affair, which know nothing of chunks.
PAIRS = [
    pytest.param(kv_heads, budget, engine, id=f"{HEADS[kv_heads]}-{budget.name}-{engine}")
    for place, kv_heads in enumerate(HEADS)
    for number, engine in enumerate(ENGINES)
    for budget in [(STARVED, STARVED_CHUNKS)[(place + number) % 2]]
]


@pytest.mark.parametrize(("folder", "budget", "engine"), PAIRS, indirect=["folder"])
def test_starved_of_accelerator_blocks(folder: Path, long_answers: Load, budget: Budget, engine: str) -> None:
    seen = answer(folder, budget, long_answers, engine)
    if engine == "apex, gpu_only":
        assert seen.moves > 20, "requests wait on the host and come back"
    else:
        assert seen.host_rows + seen.flown > 100, f"hardly anything ran on the host: {seen}"


@pytest.mark.parametrize("engine", ENGINES)
def test_mixed_lengths(folder: Path, mixed: Load, engine: str) -> None:
    answer(folder, TIGHT, mixed, engine)


@pytest.fixture(scope="module")
def opt_folder(model_root: Path) -> Path:
    return make_folder(model_root, family="opt")


@pytest.fixture(scope="module")
def opt_answers(opt_folder: Path) -> Load:
    return load(opt_folder, LONG_ANSWER_LENGTHS, 48)


@pytest.mark.parametrize("engine", ["static_partition", "apex, async_overlap", "apex, full_overlap"])
def test_another_family(opt_folder: Path, opt_answers: Load, engine: str) -> None:
    """What a family does differently is in the model: rows on the host, and cohorts under way, must not see it."""
    seen = answer(opt_folder, STARVED, opt_answers, engine)
    assert seen.host_rows + seen.flown > 100, f"hardly anything ran on the host: {seen}"


def modes(seen: Seen) -> Sequence[Mode]:
    return [mode for mode, _ in seen.modes.most_common()]


def test_forced_modes_are_what_runs(folder: Path, long_answers: Load) -> None:
    for mode in (Mode.ASYMMETRIC, Mode.ASYNC_OVERLAP, Mode.FULL_OVERLAP):
        seen = answer(folder, STARVED, long_answers, f"apex, {mode.value}")
        assert modes(seen)[0] is mode


@pytest.fixture
def missed_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other time, by lot: a lagging cohort is not there yet, and one that keeps up exceeds its patience."""
    draw = random.Random(5)
    ready = _NativePass.ready

    def by_lot(flight: _NativePass, cohort: CohortPlan, layer: int) -> bool:
        if cohort.patience_us != AWAITED and draw.random() < 0.5:
            return False
        return ready(flight, cohort._replace(patience_us=AWAITED), layer)

    monkeypatch.setattr(_NativePass, "ready", by_lot)


@pytest.mark.usefixtures("missed_windows")
@pytest.mark.parametrize("engine", ["apex, async_overlap", "apex, full_overlap"])
def test_cohorts_miss_their_window_and_land_all_the_same(folder: Path, long_answers: Load, engine: str) -> None:
    seen = answer(folder, STARVED, long_answers, engine)
    assert seen.flown > 50
    assert min(seen.asked[True], seen.asked[False]) > 200, f"hardly anybody missed a window: {seen}"


OVERLAPPING = ["static_partition", "neo", "apex, async_overlap", "apex, full_overlap"]


@pytest.mark.parametrize("engine", OVERLAPPING)
def test_several_threads_attend(folder: Path, long_answers: Load, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.real.host_pool", lambda threads, spare: Pool(3))
    answer(folder, STARVED, long_answers, engine)


@pytest.mark.usefixtures("missed_windows")
@pytest.mark.parametrize("engine", OVERLAPPING)
def test_aborts_take_nothing_from_anybody_else(folder: Path, long_answers: Load, engine: str) -> None:
    """Every few steps somebody gives up, some of them while they fly; who stays is answered as ever."""
    adapter = opened(folder, STARVED, engine)
    core, draw = adapter._core, random.Random(3)
    tokens: list[list[int]] = [[] for _ in long_answers.prompts]
    for index, prompt in enumerate(long_answers.prompts):
        assert (
            adapter.submit(Submission(index, len(prompt.token_ids), prompt.token_ids, long_answers.new_tokens)) is None
        )
    steps, aborted, flew = 0, set[int](), 0
    while adapter.busy:
        delivery = adapter.poll(0.0)
        assert delivery is not None
        for request_id, token in zip(delivery.request_ids, delivery.token_ids, strict=True):
            tokens[request_id].append(token)
        steps += 1
        if steps % 9 == 0 and core.running:
            leaving = draw.choice([each for each in core.running if each.in_flight] or core.running)
            flew += leaving.in_flight
            aborted.add(leaving.request_id)
            assert core.abort(leaving.request_id)
            adapter._executor.forget(leaving.request_id)
            core.check_integrity()
    assert len(aborted) > 5
    assert flew or "overlap" not in engine, "nobody was aborted in flight"
    for index, oracle in enumerate(long_answers.oracle):
        expected = list(oracle.token_ids)
        assert tokens[index] == (expected[: len(tokens[index])] if index in aborted else expected)
    assert all(len(pool.free) == pool.total for pool in core.kv.pools.values())
    adapter.close()


def test_the_accelerator_never_waits_for_cohorts_that_lag(folder: Path, long_answers: Load) -> None:
    """The host's one thread is kept busy; steps go on all the same, and everybody's cohorts are seen again later."""
    adapter = opened(folder, STARVED, "apex, async_overlap")
    core, executor = adapter._core, adapter._executor
    assert isinstance(executor, TorchExecutor)
    assert executor._pool is not None
    for index, prompt in enumerate(long_answers.prompts):
        adapter.submit(Submission(index, len(prompt.token_ids), prompt.token_ids, long_answers.new_tokens))
    while not (core.cohorts and len([each for each in core.running if each.tier is Tier.ACCEL]) >= 2):
        adapter.poll(0.0)
    stuffed = _long_job(executor._pool)
    seen = Seen()
    seen.watch(adapter)
    for _ in range(4):
        adapter.poll(0.0)
    assert not executor._pool.done(stuffed), "the host finished meanwhile: the test says nothing"
    assert seen.asked[False] > 0
    while adapter.busy:
        adapter.poll(0.0)
    core.check_integrity()
    adapter.close()


def _long_job(pool: Pool) -> int:
    """Seconds of attention over one page, again and again."""
    rows, page, tokens = 768, 256, 2**16
    query, out = torch.zeros(rows, 8, 32), torch.zeros(rows, 8, 32)
    pages = torch.zeros(1, 8, page, 32)
    table, context = (
        torch.zeros(rows, tokens // page, dtype=torch.int32),
        torch.full((rows,), tokens, dtype=torch.int32),
    )
    return submit_decode_attention(pool, query, pages, pages, table, context, out, 1.0)
