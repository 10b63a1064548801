"""An engine that runs in the test's process sets threads, and these must not leak into the next test."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.model.config import load_config
from engines.model.reference import OracleRun, greedy
from tests.engine_process import machine_as_found
from tests.hf.engines import Asked
from tests.model_folders import make_folder

__all__ = ["machine_as_found"]

LENGTHS = (1, 2, 15, 16, 17, 33, 64, 100)
NEW_TOKENS = (16, 1, 9, 20, 17, 2, 12, 5)


@dataclass(frozen=True)
class Load:
    """Requests of all lengths, and what transformers says to each of them alone."""

    folder: Path
    requests: list[Asked]
    oracle: list[OracleRun]


@pytest.fixture(scope="module")
def load(model_root: Path, machine_as_found: None) -> Load:
    return loaded(make_folder(model_root, kv_heads=2))


def loaded(folder: Path) -> Load:
    vocabulary, draw = load_config(folder).vocab_size, random.Random(5)
    prompts = [[draw.randrange(3, vocabulary) for _ in range(length)] for length in LENGTHS]
    requests = [Asked(prompt, count) for prompt, count in zip(prompts, NEW_TOKENS, strict=True)]
    return Load(folder, requests, greedy(folder, prompts, NEW_TOKENS))
