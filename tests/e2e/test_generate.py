"""`harness generate` as a user runs it: token for token what transformers says, whatever the budget does on the way."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.model.reference import OracleRun, compare, greedy
from tests.e2e.commands import Answer, harness
from tests.model_folders import make_folder

NEW_TOKENS = 32
LENGTHS = (1, 2, 16, 17, 31, 40, 64, 65, 80, 129)
IDS: list[Any] = ["a", 7, 7.5, None, ["nested"], {"key": 1}, "ü", "same", "same", 2**60]

CHUNKED = ("--max-batch-tokens", 37, "--accel-kv-tokens", 4096)
STARVED = ("--max-batch-tokens", 64, "--accel-kv-tokens", 160)
SWAPPED = (*STARVED, "--policy-option", "preemption=swap")


@dataclass(frozen=True)
class Asked:
    """A model, prompts in a file, and transformers' answers without any end."""

    folder: Path
    prompts: Path
    oracle: list[OracleRun]


@dataclass(frozen=True)
class Generated:
    answer: Answer
    lines: list[dict[str, Any]]

    @property
    def tokens(self) -> list[list[int]]:
        return [line["token_ids"] for line in self.lines]

    @property
    def preemptions(self) -> int:
        found = re.search(r"with (\d+) preemptions", self.answer.err)
        assert found, self.answer.err
        return int(found[1])


@pytest.fixture(scope="module", params=[4, 2], ids=["multi-head", "grouped"])
def asked(request: pytest.FixtureRequest, model_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    draw = random.Random(3)
    token_ids = [[draw.randrange(3, 512) for _ in range(length)] for length in LENGTHS]
    folder = make_folder(model_root, kv_heads=request.param)
    path = tmp_path_factory.mktemp("asked") / "prompts.jsonl"
    lines = [json.dumps({"id": name, "prompt_token_ids": tokens}) for name, tokens in zip(IDS, token_ids, strict=True)]
    path.write_text("\n\n".join(lines))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small models are fastest on one
    try:
        return Asked(folder, path, greedy(folder, token_ids, NEW_TOKENS))
    finally:
        torch.set_num_threads(threads)


def generate(asked: Asked, out: Path, *options: object) -> Generated:
    answer = harness(
        *("generate", "--engine", "gpu_only", "--backend", "cpu", "--model", asked.folder, "--prompts", asked.prompts),
        *("--max-new-tokens", NEW_TOKENS, "--out", out, *options),
        cwd=out.parent,
    )
    assert (answer.code, answer.out) == (0, ""), answer.err
    assert len(answer.err.splitlines()) == 1
    return Generated(answer, [json.loads(line) for line in out.read_text().splitlines()])


@pytest.mark.parametrize(
    ("options", "least_preemptions"),
    [(CHUNKED, 0), (STARVED, 4), (SWAPPED, 4)],
    ids=["chunked", "starved", "swapped"],
)
def test_tokens_equal_those_of_transformers(
    asked: Asked, tmp_path: Path, options: tuple[object, ...], least_preemptions: int
) -> None:
    generated = generate(asked, tmp_path / "out.jsonl", "--ignore-eos", *options)
    assert [line["id"] for line in generated.lines] == IDS, "in the order of the prompts, ids as they were given"
    assert all(set(line) == {"id", "token_ids"} for line in generated.lines)
    parity = compare(generated.tokens, asked.oracle)
    assert not parity.differences, str(parity)
    assert generated.preemptions >= least_preemptions
    assert len({token for tokens in generated.tokens for token in tokens}) > 20


@pytest.mark.parametrize("asked", [2], ids=["grouped"], indirect=True)
def test_end_tokens_end_answers_unless_they_are_ignored(asked: Asked, tmp_path: Path) -> None:
    """The model's own end tokens, three of them: whichever an answer meets first is its last token."""
    early = Counter(token for run in asked.oracle for token in set(run.token_ids[4:20]))
    ends = [token for token, _ in early.most_common(3)]
    ending = Asked(tmp_path / "ending", asked.prompts, asked.oracle)
    shutil.copytree(asked.folder, ending.folder)
    config = json.loads((ending.folder / "config.json").read_text())
    (ending.folder / "config.json").write_text(json.dumps(config | {"eos_token_id": ends}))

    expected = [until(list(run.token_ids), ends) for run in asked.oracle]
    assert sum(len(tokens) < NEW_TOKENS for tokens in expected) > 3, "the folder's end tokens occur early"
    assert generate(ending, tmp_path / "ended.jsonl", *STARVED).tokens == expected
    full = generate(ending, tmp_path / "full.jsonl", "--ignore-eos", *STARVED).tokens
    assert full == [list(run.token_ids) for run in asked.oracle]


def until(tokens: list[int], ends: list[int]) -> list[int]:
    last = min((tokens.index(end) for end in ends if end in tokens), default=len(tokens))
    return tokens[: last + 1]
