"""Drawn tokens depend on seed and position alone: not on the batch around a request, nor on losing its KV."""

import random
from pathlib import Path

from engines.model.config import load_config
from harness.build import offline_adapter
from harness.generate import Prompt, run_offline, specification
from tests.model_folders import make_folder

SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 0.95, "seed": 11}


def drawn(folder: Path, sampling: dict[str, float], max_batch: int, accel_kv_tokens: int) -> list[list[int]]:
    vocabulary, draw = load_config(folder).vocab_size, random.Random(3)
    prompts = [Prompt(i, tuple(draw.randrange(3, vocabulary) for _ in range(5 + 7 * i))) for i in range(8)]
    options = {
        "dtype": "float32",
        "max_batch": max_batch,
        "max_batch_tokens": 64,
        "accel_kv_tokens": accel_kv_tokens,
        "seed": 0,
        "emulation": "native",
        "policy_options": {},
    }
    adapter = offline_adapter(specification("gpu_only", "cpu", str(folder), options), 128, sampling)
    tokens, _ = run_offline(adapter, prompts, 40, frozenset())
    adapter.close()
    return tokens


def test_sampling_ignores_batch_and_preemption(model_root: Path) -> None:
    folder = make_folder(model_root)
    alone = drawn(folder, SAMPLING, max_batch=1, accel_kv_tokens=1024)
    assert drawn(folder, SAMPLING, max_batch=8, accel_kv_tokens=1024) == alone
    assert drawn(folder, SAMPLING, max_batch=8, accel_kv_tokens=128) == alone
    assert drawn(folder, SAMPLING | {"seed": 12}, max_batch=8, accel_kv_tokens=1024) != alone
    assert drawn(folder, {}, max_batch=8, accel_kv_tokens=1024) != alone
