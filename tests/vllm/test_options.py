"""The engine's options and what is said where it cannot run; none of this starts vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.registry import EngineError, make_engine
from engines.vllm import options
from engines.vllm.options import Vllm
from engines.vllm.worker import engine_args
from tests.harness.conftest import Call, Write

SETTINGS = {
    "model": "folder",
    "dtype": "float16",
    "accel_kv_tokens": 4096,
    "accel_page_tokens": 16,
    "kv_bytes_per_token": 1000,
    "backend": "cuda",
    "max_batch": 64,
    "max_batch_tokens": 512,
    "longest_request_tokens": 900,
    "prefix_caching": False,
    "eager": True,
    "engine_args": {},
}


def test_the_envelope_in_vllms_words() -> None:
    args = engine_args(SETTINGS)
    assert args["num_gpu_blocks_override"] == 257  # block 0 is vLLM's own
    assert args["kv_cache_memory_bytes"] == 257 * 16_000
    assert (args["max_num_seqs"], args["max_num_batched_tokens"], args["max_model_len"]) == (64, 512, 900)
    assert args["enable_prefix_caching"] is False


def test_on_a_cpu_as_many_tokens_in_the_pages_that_its_attention_takes() -> None:
    args = engine_args(SETTINGS | {"backend": "cpu"})
    assert (args["block_size"], args["num_gpu_blocks_override"]) == (32, 129)
    args = engine_args(SETTINGS | {"backend": "cpu", "accel_page_tokens": 64})
    assert (args["block_size"], args["num_gpu_blocks_override"]) == (64, 65)


def test_further_arguments_win() -> None:
    args = engine_args(SETTINGS | {"engine_args": {"max_model_len": 2048, "attention_backend": "TRITON_ATTN"}})
    assert args["max_model_len"] == 2048
    assert args["attention_backend"] == "TRITON_ATTN"


@pytest.mark.parametrize(
    ("backend", "paced", "words"),
    [
        ("sim", False, "gpu_only stands for it"),
        ("cpu", True, "emulation.mode: native"),
        ("endpoint", False, "kind: openai"),
    ],
)
def test_where_it_cannot_run(backend: str, paced: bool, words: str) -> None:
    (problem,) = Vllm().problems(backend, paced)
    assert words in problem


def test_without_an_environment_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(options, "ENVIRONMENTS", (tmp_path / "nowhere",))
    assert "make vllm-cpu" in str(Vllm.unavailable())
    (problem,) = Vllm().problems("cpu", paced=False)
    assert "make vllm-cpu" in problem
    (problem,) = Vllm(python=str(tmp_path / "python")).problems("cpu", paced=False)
    assert str(tmp_path / "python") in problem


def test_mistakes_in_its_options_are_named(call: Call, write: Write) -> None:
    with pytest.raises(EngineError, match=r"start_limit_s: must be above 0"):
        make_engine("vllm", {"start_limit_s": 0})
    answer = call("validate", "--config", write(engines=[{"kind": "vllm", "pyton": "x"}]))
    assert answer.code == 2
    assert 'did you mean "python"' in answer.err
