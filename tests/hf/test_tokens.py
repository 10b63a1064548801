"""Its tokens are those of transformers at batch 1: padding, chunks, offload and company change none of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.hf.worker import Batch
from engines.model.reference import compare
from tests.hf.conftest import Load, loaded
from tests.hf.engines import Asked, batches, opened, serve
from tests.model_folders import make_folder

BY_HAND = {
    "model.embed_tokens": "cpu",
    "model.layers": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}
BUDGETS: dict[str, dict[str, Any]] = {
    "all at once": {},
    "eager": {"attention": "eager"},
    "prompts in chunks": {"max_batch_tokens": 50},
    "prompts token by token": {"max_batch_tokens": 9, "attention": "eager"},
    "little KV": {"accel_kv_tokens": 300},
    "batches of three": {"batch": 3},
    "one by one": {"max_batch": 1},
    "weights on the host": {"offload": "cpu"},
    "weights on the disk": {"offload": "disk"},
    "weights spread": {"device_map": "auto", "max_memory": {"cpu": "1500KB"}},
    "weights spread by hand": {"device_map": BY_HAND},
}


@pytest.mark.parametrize("budget", BUDGETS)
def test_tokens_equal_transformers(load: Load, tmp_path: Path, budget: str) -> None:
    with opened(load.folder, tmp_path / "files", **BUDGETS[budget]) as engine:
        answers, steps = serve(engine, load.requests)
    parity = compare(answers, load.oracle)
    assert not parity.differences, str(parity)
    assert len({token for answer in answers for token in answer}) > 20, "the model says too little to mean much"
    assert sorted(each for step in steps for each in step["finished"]) == list(range(len(load.requests)))


OTHERS: dict[str, dict[str, Any]] = {
    "tied": {"tied": True},
    "scaled": {"kv_heads": 2, "llama3_scaling": True},
    "opt": {"family": "opt"},
    "opt, tied": {"family": "opt", "tied": True},
}


@pytest.mark.parametrize("variant", OTHERS)
@pytest.mark.parametrize("offload", ["none", "cpu", "disk"])
def test_tokens_of_other_models(model_root: Path, tmp_path: Path, variant: str, offload: str) -> None:
    load = loaded(make_folder(model_root, **OTHERS[variant]))
    with opened(load.folder, tmp_path / "files", offload=offload) as engine:
        answers, _ = serve(engine, load.requests)
    parity = compare(answers, load.oracle)
    assert not parity.differences, str(parity)


def test_who_comes_later_changes_nobody(load: Load, tmp_path: Path) -> None:
    with opened(load.folder, tmp_path / "files", max_batch=4) as engine:
        answers, steps = serve(engine, load.requests, at_once=2)
    parity = compare(answers, load.oracle)
    assert not parity.differences, str(parity)
    assert batches(steps)[0] == [0, 1]
    assert [row for batch in batches(steps) for row in batch] == list(range(len(load.requests)))


@pytest.mark.parametrize("lost", ["attention_mask", "side"])
def test_wrong_padding_would_be_seen(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """The proof of the tests above: without the mask, or padded on the right, tokens differ."""
    inputs = Batch.inputs

    def wrong(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
        found = inputs(batch, device)
        if lost == "attention_mask":
            return found | {"attention_mask": torch.ones_like(found["attention_mask"])}
        lengths = found["attention_mask"].sum(dim=1)
        return {
            name: torch.stack([row.roll(int(length)) for row, length in zip(rows, lengths, strict=True)])
            for name, rows in found.items()
        }

    with opened(load.folder, tmp_path / "files") as engine:
        monkeypatch.setattr(Batch, "inputs", wrong)
        answers, _ = serve(engine, load.requests)
    assert len(compare(answers, load.oracle).differences) > len(load.requests) / 2


def test_end_tokens_end_nothing_and_are_not_avoided(load: Load, tmp_path: Path) -> None:
    """The folder's end tokens are ones that the answers are full of; the answers stay what they are."""
    ends = sorted({run.token_ids[0] for run in load.oracle})
    folder = tmp_path / "ending"
    shutil.copytree(load.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": ends}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "repetition_penalty": 1.5}))
    with opened(folder, tmp_path / "files") as engine:
        answers, _ = serve(engine, load.requests)
    assert answers == [list(run.token_ids) for run in load.oracle]


def test_stop_ids_end_their_request_and_nobody_elses(load: Load, tmp_path: Path) -> None:
    stops = [list(run.token_ids[2:3]) if row % 3 else [] for row, run in enumerate(load.oracle)]
    requests = [
        Asked(request.token_ids, request.new_tokens, ids) for request, ids in zip(load.requests, stops, strict=True)
    ]
    with opened(load.folder, tmp_path / "files") as engine:
        answers, steps = serve(engine, requests)
    expected = [until(list(run.token_ids), ids) for run, ids in zip(load.oracle, stops, strict=True)]
    assert answers == expected
    assert sum(len(answer) < request.new_tokens for answer, request in zip(answers, requests, strict=True)) >= 3
    assert len(steps) == max(map(len, expected)), "nobody is waited for who has ended"


def until(tokens: list[int], ends: list[int]) -> list[int]:
    last = min((tokens.index(end) for end in ends if end in tokens), default=len(tokens))
    return tokens[: last + 1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_is_computed_in_sixteen_bit(load: Load, tmp_path: Path, dtype: str) -> None:
    with opened(load.folder, tmp_path / "files", dtype=dtype, offload="disk") as engine:
        answers, _ = serve(engine, load.requests)
        assert engine.resolved["dtype"] == dtype
    assert list(map(len, answers)) == [request.new_tokens for request in load.requests]
    same = sum(answer[0] == run.token_ids[0] for answer, run in zip(answers, load.oracle, strict=True))
    assert same > len(answers) / 2, "rounding turns a few around, not most"
