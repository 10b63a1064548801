"""Wherever weights and KV are placed, tokens are transformers' own: layer by layer, operator by operator, by column."""

from pathlib import Path
from typing import Any

import pytest

from engines.backends.compression import pack, unpack
from engines.core.placement import FROM_DISK, STREAMED, LayerPlacement, Part, Placement, Split
from engines.core.types import Limits
from engines.core.units import Tier
from engines.model.config import load_config
from engines.model.reference import compare
from engines.model.weights import load_weights, save_folder
from harness.generate import run_offline
from tests.contract.test_token_exactness import LONG_ANSWER_LENGTHS, Load, load
from tests.model_folders import make_folder
from tests.placements import Placed, open_placed, placements, whole

LENGTHS = (1, 2, 15, 17, 33, 64, 129, 300)
LAYERS = 4
ALL = placements(LAYERS)
STARVED = Limits(12, 24)
TIGHT = Limits(16, 256)
MODELS: dict[str, dict[str, Any]] = {"llama": {"kv_heads": 2}, "opt": {"family": "opt"}}


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, model_root: Path) -> Path:
    return make_folder(model_root, **MODELS[request.param])


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Load:
    return load(folder, LENGTHS, 12)


@pytest.fixture(scope="module")
def long_answers(folder: Path) -> Load:
    return load(folder, LONG_ANSWER_LENGTHS, 32)


def answer(folder: Path, placement: Placement, limits: Limits, kv_tokens: int, work: Load, spare: Path) -> int:
    """Asserts equality with the oracle; returns how often requests were preempted."""
    adapter = open_placed(folder, Placed(placement), limits, kv_tokens, spare)
    tokens, preemptions = run_offline(adapter, work.prompts, work.new_tokens, frozenset())
    adapter._core.check_integrity()
    adapter.close()
    parity = compare(tokens, work.oracle)
    assert not parity.differences, str(parity)
    assert not list(spare.iterdir()), "something is left on disk"
    return preemptions


@pytest.mark.parametrize("kind", ALL)
def test_mixed_lengths(folder: Path, mixed: Load, kind: str, tmp_path: Path) -> None:
    answer(folder, ALL[kind], TIGHT, 640, mixed, tmp_path)


@pytest.mark.parametrize("kind", ["everything at once", "by column, all four kinds", "KV by layer", "may be changed"])
def test_starved_in_small_chunks(folder: Path, long_answers: Load, kind: str, tmp_path: Path) -> None:
    assert answer(folder, ALL[kind], STARVED, 208, long_answers, tmp_path) > 0, "nobody was preempted"


def test_several_threads_on_the_host(folder: Path, mixed: Load, tmp_path: Path) -> None:
    adapter = open_placed(folder, Placed(ALL["everything at once"]), TIGHT, 640, tmp_path, threads=3)
    tokens, _ = run_offline(adapter, mixed.prompts, mixed.new_tokens, frozenset())
    adapter.close()
    assert not compare(tokens, mixed.oracle).differences


def test_kinds_use_every_tier() -> None:
    """Of the placements above: the tests would say little if these left something out."""
    layers = [layer for placement in ALL.values() for layer in placement.layers]
    assert {layer.kv for layer in layers} == set(Tier)
    assert {bool(share) for layer in layers for split in layer.splits for share in split.shares} == {True, False}


@pytest.mark.parametrize("split", [STREAMED, FROM_DISK, Split(0.5, 0.25, 0.25)], ids=["streamed", "disk", "shares"])
def test_compressed_weights_answer_as_the_weights_they_unpack_to(
    folder: Path, split: Split, model_root: Path, tmp_path: Path
) -> None:
    """Nothing is lost but what packing loses: transformers answers alike with the unpacked matrices."""
    config = load_config(folder)
    weights = load_weights(folder, config)
    for layer in range(config.layers):
        for part in Part:
            matrix = weights[f"layers.{layer}.{part.value}"]
            matrix.copy_(unpack(pack(matrix)))
    unpacked = model_root / f"{folder.name}-unpacked"
    if not unpacked.exists():
        save_folder(unpacked, config, weights)
    work = load(unpacked, LONG_ANSWER_LENGTHS, 16)
    placement = whole(LAYERS, LayerPlacement.of(split), compressed_weights=True)
    answer(folder, placement, TIGHT, 640, work, tmp_path)
    plain = load(folder, LONG_ANSWER_LENGTHS, 16)
    assert compare([run.token_ids for run in work.oracle], plain.oracle).differences, "packing changed nothing"
