"""The real vLLM by the commands of a user: offline tokens, and a start that fails."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from engines.model.reference import compare, greedy
from engines.model.shape import Family
from tests.e2e.commands import harness
from tests.model_folders import make_folder

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_generate_gives_the_tokens_of_transformers(model_root: Path, tmp_path: Path, family: Family) -> None:
    """The pages of 16 that are our default become pages of 32, the smallest that vLLM takes on a CPU."""
    folder, draw = make_folder(model_root, family=family), random.Random(5)
    prompts = [[draw.randrange(3, 512) for _ in range(length)] for length in (1, 15, 16, 17, 40)]
    lines = [json.dumps({"id": index, "prompt_token_ids": prompt}) for index, prompt in enumerate(prompts)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    options = ["--engine", "vllm", "--policy-option", "eager=true", "--model", folder, "--max-new-tokens", 24]
    files = ["--prompts", "prompts.jsonl", "--out", "out.jsonl", "--ignore-eos"]
    answer = harness("generate", *options, *files, cwd=tmp_path, timeout_s=200)
    assert answer.code == 0, answer.err
    given = [json.loads(line)["token_ids"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert not compare(given, greedy(folder, prompts, 24)).differences


def test_a_start_that_fails_is_one_line_with_vllms_reason(model_root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        f"""
schema_version: 1
name: bad
backend: cpu
model: {make_folder(model_root)}
dtype: float32
emulation: {{mode: native}}
budget: {{accel_kv_tokens: 512}}
engines: [{{kind: vllm, eager: true, engine_args: {{no_such_argument: 1}}}}]
workloads: [{{kind: batch, batch: 2, prompt: 8, output: 4}}]
"""
    )
    answer = harness("run", "--config", "bad.yaml", "--out", "runs", "--json", cwd=tmp_path, timeout_s=200)
    assert answer.code == 4
    (cell,) = json.loads(answer.out)["cells"]
    assert cell["status"] == "failed"
    assert "vllm: " in cell["error"]
    assert "no_such_argument" in cell["error"]
