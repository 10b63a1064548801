"""What `harness generate` cannot do is one line and exit code 2, and leaves no file that looks like an answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.commands import harness
from tests.model_folders import make_folder

GOOD = json.dumps({"id": 1, "prompt_token_ids": [5, 6, 7]})


def prompts(*lines: str) -> Callable[[Path], list[object]]:
    def prepare(here: Path) -> list[object]:
        (here / "prompts.jsonl").write_text("\n".join(lines))
        return []

    return prepare


def prompt_of(length: int, *options: object) -> Callable[[Path], list[object]]:
    def prepare(here: Path) -> list[object]:
        (here / "prompts.jsonl").write_text(json.dumps({"id": "big", "prompt_token_ids": [5] * length}))
        return list(options)

    return prepare


def garbage_weights(here: Path) -> list[object]:
    (here / "model" / "model.safetensors").write_bytes(b"this is no safetensors file at all" * 10)
    return []


def truncated_weights(here: Path) -> list[object]:
    weights = here / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return []


def broken_config(here: Path) -> list[object]:
    (here / "model" / "config.json").write_text('{"model_type": "llama", ')
    return []


def no_weights(here: Path) -> list[object]:
    (here / "model" / "model.safetensors").unlink()
    return []


def no_model(here: Path) -> list[object]:
    shutil.rmtree(here / "model")
    return []


def no_prompts(here: Path) -> list[object]:
    (here / "prompts.jsonl").unlink()
    return []


MISTAKES: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "no JSON": (prompts(GOOD, "", "{not json", GOOD), "prompts.jsonl:3: expected"),
    "no prompt": (prompts(GOOD, '{"id": 2}'), "prompts.jsonl:2: expected"),
    "no token ids": (prompts(GOOD, '{"id": 2, "prompt_token_ids": [1, "two"]}'), "prompts.jsonl:2: prompt_token_ids"),
    "a token outside the vocabulary": (
        prompts(GOOD, GOOD, '{"id": 3, "prompt_token_ids": [512]}'),
        "prompts.jsonl:3: token ids must be 0..511",
    ),
    "nothing": (prompts("", ""), "no prompts"),
    "more KV than there is": (
        prompt_of(100, "--accel-kv-tokens", 64),
        "prompt 'big' can never run: it needs KV for 115",
    ),
    "more than the model's context": (
        prompt_of(1020, "--accel-kv-tokens", 2048),
        "prompt 'big' can never run: it needs 1036 tokens",
    ),
    "no model": (no_model, "model"),
    "no weights": (no_weights, "neither model.safetensors nor"),
    "weights that are none": (garbage_weights, "cannot be read as safetensors"),
    "truncated weights": (truncated_weights, "cannot be read as safetensors"),
    "a config that is none": (broken_config, "config.json"),
    "no file of prompts": (no_prompts, "prompts.jsonl: no such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(model_root: Path, tmp_path: Path, mistake: str) -> None:
    shutil.copytree(make_folder(model_root), tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    prepare, message = MISTAKES[mistake]
    options = prepare(tmp_path)
    out = tmp_path / "out.jsonl"
    answer = harness(
        *("generate", "--model", "./model", "--prompts", "prompts.jsonl", "--out", out, "--max-new-tokens", 16),
        *options,
        cwd=tmp_path,
    )
    assert answer.code == 2, answer
    assert answer.out == ""
    [line] = answer.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out.jsonl")] == []
