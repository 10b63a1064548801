"""The engine as users meet it: in a run beside ours, and answering prompts from a file."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.model.reference import greedy
from results.query import Run, load_run
from results.store import read_requests, read_steps
from tests.e2e.commands import harness
from tests.model_folders import make_folder

PATIENCE_S = 300.0  # torch and transformers are imported by the cells, by the engines and by the oracles
EXPERIMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "beside",
    "backend": "cpu",
    "model": "tiny-1m",
    "dtype": "float32",
    "budget": {"accel_kv_tokens": 512, "cpu_threads": 1, "max_batch": 4, "max_batch_tokens": 64},
    "engines": ["gpu_only", "hf"],
    "workloads": [{"kind": "long_output", "prompt": 40, "output": 10, "jitter": 0.8, "requests": 10}],
    "emulation": {"mode": "native"},
    "measure": {"warmup_requests": 1, "seed": 3, "time_limit_s": 300},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    here = tmp_path_factory.mktemp("beside")
    (here / "beside.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    answer = harness("run", "--config", "beside.yaml", "--out", "out", cwd=here, timeout_s=PATIENCE_S)
    assert answer.code == 0, answer.err
    [path] = (here / "out").iterdir()
    return load_run(path)


def test_all_of_them_say_what_transformers_says(run: Run) -> None:
    assert [cell.engine for cell in run.cells] == ["gpu_only", "hf"]
    for cell in run.cells:
        assert str(cell.status) == "ok", cell.error
        assert cell.parity is not None
        assert cell.parity.held is True, cell.parity.note
        assert (cell.parity.checked_requests, cell.parity.excused) == (9, 0)
        assert cell.unfair == ()


def test_requests_of_all_lengths_get_all_of_their_tokens(run: Run) -> None:
    for cell in run.cells:
        requests, steps = read_requests(run.cell_dir(cell)), read_steps(run.cell_dir(cell))
        assert (requests["status"] == "finished").all()
        assert requests["asked_tokens"].nunique() > 4
        assert (requests["output_tokens"] == requests["asked_tokens"]).all()
        assert steps["prefill_tokens"].sum() == requests["prompt_tokens"].sum()
        assert steps["decode_rows"].sum() == (requests["output_tokens"] - 1).sum()
        assert steps["running"].max() == 4
        assert requests["first_scheduled_s"].notna().all()


def test_it_says_what_it_took_and_how(run: Run) -> None:
    ours, theirs = (cell.resolved for cell in run.cells)
    for name in ("accel_kv_tokens", "max_batch", "max_batch_tokens", "accel_cores", "cpu_threads", "dtype"):
        assert theirs[name] == ours[name]
    assert theirs["weight_bytes"] == ours["weight_bytes"]
    assert {"torch", "transformers", "accelerate", "attention", "batching"} <= theirs.keys()
    assert not any(path.is_dir() for path in run.cell_dir(run.cells[1]).iterdir()), "its files are gone"


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(9)
    return [[draw.randrange(3, 512) for _ in range(length)] for length in (40, 3, 17, 1, 90)]


def generate(here: Path, folder: Path, prompts: list[list[int]], *options: object, code: int = 0) -> Any:
    """Token ids by prompt, or the one line that says why there are none."""
    lines = [json.dumps({"id": index, "prompt_token_ids": prompt}) for index, prompt in enumerate(prompts)]
    (here / "prompts.jsonl").write_text("\n".join(lines))
    out = here / "out.jsonl"
    answer = harness(
        *("generate", "--engine", "hf", "--backend", "cpu", "--model", folder, "--prompts", here / "prompts.jsonl"),
        *("--max-new-tokens", 12, "--out", out, *options),
        cwd=here,
        timeout_s=PATIENCE_S,
    )
    assert answer.code == code, answer.err
    if code:
        assert not out.exists()
        return answer.err
    return [json.loads(line)["token_ids"] for line in out.read_text().splitlines()]


def test_generate_ends_at_end_tokens(model_root: Path, tmp_path: Path, prompts: list[list[int]]) -> None:
    """With its weights on the disk, for a change."""
    folder = make_folder(model_root)
    full = [list(run.token_ids) for run in greedy(folder, prompts, 12)]
    ends = sorted({full[0][5], full[2][0], full[4][8]})
    shutil.copytree(folder, tmp_path / "ending")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "ending" / "config.json").write_text(json.dumps(config | {"eos_token_id": ends}))
    lasts = [min((tokens.index(end) for end in ends if end in tokens), default=12) for tokens in full]
    expected = [tokens[: last + 1] for tokens, last in zip(full, lasts, strict=True)]
    assert len({len(tokens) for tokens in expected}) > 2
    assert generate(tmp_path, tmp_path / "ending", prompts, "--policy-option", "offload=disk") == expected


def test_generate_says_which_prompt_can_never_run(model_root: Path, tmp_path: Path, prompts: list[list[int]]) -> None:
    error = generate(tmp_path, make_folder(model_root), prompts, "--accel-kv-tokens", 96, code=2)
    assert error.splitlines() == [
        "error: prompt 4 failed: refused: it needs KV for 101 tokens, the accelerator holds 96"
    ]
