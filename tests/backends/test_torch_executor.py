"""One executor for both devices: the ops written for CUDA give the CPU's tokens, and 16 bit stays within its bound."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engines.backends.attention_ops import NativeOps, TorchOps
from engines.backends.torch_backend import TorchExecutor
from engines.model.reference import logit_bound, logit_error, teacher_forced_logits
from harness.adapter import CoreAdapter
from harness.build import offline_adapter
from harness.generate import Prompt, run_offline, specification
from tests.model_folders import make_folder

LENGTHS = (1, 5, 16, 17, 33, 40, 64, 90, 130, 150)
PROMPTS = [Prompt(index, tuple((7 * index + 11 * i) % 509 + 3 for i in range(n))) for index, n in enumerate(LENGTHS)]
NEW_TOKENS = 32


def open_engine(
    folder: Path, *, dtype: str = "float32", chunk: int = 48, kv_tokens: int = 256, preemption: str = "recompute"
) -> tuple[CoreAdapter, TorchExecutor]:
    options = {
        "dtype": dtype,
        "max_batch": 8,
        "max_batch_tokens": chunk,
        "accel_kv_tokens": kv_tokens,
        "seed": 0,
        "emulation": "native",
        "policy_options": {"preemption": preemption},
    }
    adapter = offline_adapter(specification("gpu_only", "cpu", str(folder), options), 200)
    assert isinstance(adapter, CoreAdapter)
    executor = adapter._executor
    assert isinstance(executor, TorchExecutor)
    return adapter, executor


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("kv_heads", [4, 2], ids=["multi-head", "grouped"])
def test_both_kinds_of_ops_give_the_same_tokens(model_root: Path, kv_heads: int, preemption: str) -> None:
    folder = make_folder(model_root, kv_heads=kv_heads)
    answers = []
    for ops in (NativeOps(), TorchOps()):
        adapter, executor = open_engine(folder, preemption=preemption)
        assert isinstance(executor._ops, NativeOps)
        executor._ops = ops
        tokens, preemptions = run_offline(adapter, PROMPTS, NEW_TOKENS, frozenset())
        assert preemptions > 0, "neither chunks nor preemptions are tested by a run without them"
        adapter.close()
        answers.append(tokens)
    assert answers[0] == answers[1]
    assert len({token for answer in answers[0] for token in answer}) > 20


def test_bfloat16_stays_within_the_bound(model_root: Path) -> None:
    """The logits that our engine sampled from, chunked and preempted, against transformers on the very same text."""
    folder = make_folder(model_root, kv_heads=2)
    adapter, executor = open_engine(folder, dtype="bfloat16")
    sampled = record_logits(executor)
    answers, preemptions = run_offline(adapter, PROMPTS, NEW_TOKENS, frozenset())
    adapter.close()
    assert preemptions > 0
    texts = [[*prompt.token_ids, *answer] for prompt, answer in zip(PROMPTS, answers, strict=True)]
    bound = logit_bound(folder, torch.bfloat16, [text[:96] for text in texts if len(text) >= 96])
    assert 0 < bound < 0.2
    for request, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        theirs = teacher_forced_logits(folder, text[:-1], torch.bfloat16)[len(prompt.token_ids) - 1 :]
        ours = torch.stack(sampled[request])
        assert logit_error(ours, theirs) < bound, f"request {request}"
        assert logit_error(ours[:-1], theirs[1:]) > bound, "one token further would be noticed"


def record_logits(executor: TorchExecutor) -> dict[int, list[Tensor]]:
    """Per request, the logits of every token it was given, in order."""
    rows: dict[int, list[Tensor]] = {}
    computed: list[Tensor] = []
    logits, run = executor._model.logits, executor._talk.sample

    def noted(hidden: Tensor) -> Tensor:
        computed.append(logits(hidden))
        return computed[-1]

    def sample(logits: Tensor, requests: Sequence[int], positions: Sequence[int]) -> list[int]:
        for request, row in zip(requests, computed.pop(), strict=True):
            rows.setdefault(request, []).append(row)
        return run(logits, requests, positions)

    executor._model.logits = noted  # type: ignore[method-assign]
    executor._talk.sample = sample  # type: ignore[method-assign]
    return rows


def test_closing_twice_is_fine(model_root: Path) -> None:
    adapter, executor = open_engine(make_folder(model_root))
    adapter.close()
    executor.close()
