"""Whole cells: the harness run against a server as a user runs it, with a model's tokens, with faults, with a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from engines.openai.faults import Fault
from harness.cell import run_cell
from harness.metrics import aggregate
from results.schema import CellSummary, Label, Status
from results.store import read_requests
from tests.engine_process import machine_as_found
from tests.harness.conftest import Call, Write
from tests.model_folders import make_folder
from tests.openai.scripts import (
    Tokens,
    begun,
    correct,
    cut,
    faulty,
    one_too_many,
    sends,
    sends_raw,
    short,
    silence,
    status,
)
from tests.openai.server import Script, Server, error_body
from tests.openai.worlds import EXPERIMENT, cell_spec

__all__ = ["machine_as_found"]

KEY = "sk-of-the-test-9f"
EIGHT = {"kind": "long_output", "prompt": 12, "output": 6, "jitter": 0.0, "requests": 10, "rate": 50}


def ran(server: Server, cell_dir: Path, options: dict[str, Any] | None = None, **changes: Any) -> CellSummary:
    (cell_dir / "spec.json").write_text(cell_spec(server.url, options, **changes).to_json())
    return run_cell(cell_dir)


def greedy(folder: Path) -> Tokens:
    """What the model says, by transformers itself."""
    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def tokens(prompt: Sequence[int], asked: int) -> list[int]:
        text = torch.tensor([list(prompt)])
        with torch.inference_mode():
            found = model.generate(
                text, attention_mask=torch.ones_like(text), max_new_tokens=asked, do_sample=False, eos_token_id=None
            )
        answer: list[int] = found[0, len(prompt) :].tolist()
        return answer

    return tokens


@pytest.fixture(scope="module")
def folder(model_root: Path) -> Path:
    return make_folder(model_root)


# --- the model's tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "label"), [("endpoint", Label.MEASURED), ("cpu", Label.EMULATED)], ids=["endpoint", "cpu"]
)
def test_the_models_tokens_are_checked_and_held(tmp_path: Path, folder: Path, backend: str, label: Label) -> None:
    changes: dict[str, Any] = {
        "backend": backend,
        "model": str(folder),
        "workloads": [EIGHT],
        "emulation": {"mode": "native"},
    }
    with Server(correct(greedy(folder))) as server:
        summary = ran(server, tmp_path, **changes)
    assert (summary.status, summary.label, summary.error) == (Status.OK, label, None)
    assert summary.parity is not None
    assert (summary.parity.held, summary.parity.checked_requests, summary.parity.checked_tokens) == (True, 10, 60)
    assert summary.unfair == ()
    assert summary.metrics["finished_requests"] == 10
    assert not [key for key in summary.metrics if key.startswith("fault_")]
    assert any("does not report accel_kv_tokens" in note for note in summary.notes)


def test_another_models_tokens_have_no_figures(tmp_path: Path, folder: Path) -> None:
    with Server(correct()) as server:
        summary = ran(server, tmp_path, model=str(folder), workloads=[EIGHT])
    assert summary.status is Status.INVALID
    assert "wrong tokens" in str(summary.error)
    assert "output_tokens_per_s" not in summary.metrics


def test_tokens_without_ids_are_not_checked_and_that_is_said(tmp_path: Path, folder: Path) -> None:
    with Server(correct(ignores=["return_token_ids"])) as server:
        summary = ran(server, tmp_path, model=str(folder), workloads=[EIGHT])
    assert summary.status is Status.OK
    assert summary.parity is not None
    assert summary.parity.held is None
    assert summary.parity.note == "not checked: the server gives no token ids"


# --- faults in the figures --------------------------------------------------------------------------------------------


FAULTY: dict[int, Script] = {
    1: status(429, Retry_After="1"),
    2: status(429),
    3: begun(4, cut),
    4: sends(b"{", after=4),
    5: short,
    6: begun(2, silence),
    7: one_too_many,
    8: status(500, error_body("no room")),
    9: sends_raw(b"<html>\n"),
}


def test_failed_requests_are_counted_by_kind_and_in_no_figure(tmp_path: Path) -> None:
    """With tokens of theirs on record, and the figures those of the others alone."""
    work = {**EIGHT, "requests": 16}
    with Server(faulty(FAULTY, which=lambda ask: ask.number), probed=correct()) as server:
        summary = ran(server, tmp_path, {"silence_timeout_s": 0.5}, workloads=[work])
    assert (summary.status, summary.error) == (Status.OK, None)
    metrics = summary.metrics
    assert (metrics["finished_requests"], metrics["failed_requests"]) == (7, 9)
    assert {key: value for key, value in metrics.items() if key.startswith("fault_")} == {
        "fault_rate_limited_requests": 2,
        "fault_cut_requests": 1,
        "fault_garbage_requests": 2,
        "fault_short_requests": 1,
        "fault_silence_requests": 1,
        "fault_miscounted_requests": 1,
        "fault_server_error_requests": 1,
    }
    rows = read_requests(tmp_path)
    failed = rows[rows.status == "failed"]
    assert failed.output_tokens.sum() >= 4 + 4 + 5 + 2
    assert all(reason.partition(": ")[0] in set(Fault) for reason in failed.reason)
    finished = aggregate(rows[rows.status == "finished"]).metrics
    for key in ("ttft_s_mean", "tpot_s_mean", "itl_s_mean", "e2e_s_max", "decode_tokens_per_s"):
        assert metrics[key] == pytest.approx(finished[key]), key
    window_s = metrics["response_latency_s"]
    assert metrics["output_tokens_per_s_whole_run"] == pytest.approx(7 * 6 / window_s)
    assert metrics["requests_per_s_whole_run"] == pytest.approx(7 / window_s)


def test_warm_up_faults_are_not_counted(tmp_path: Path) -> None:
    measure = {**EXPERIMENT["measure"], "warmup_requests": 3}
    with Server(faulty({0: status(429), 5: status(429)}, which=lambda ask: ask.number), probed=correct()) as server:
        summary = ran(server, tmp_path, workloads=[{**EIGHT, "rate": 5}], measure=measure)
    assert summary.metrics["fault_rate_limited_requests"] == summary.metrics["failed_requests"] == 1


# --- as a user runs it ------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint() -> Iterator[Callable[..., dict[str, Any]]]:
    """Starts a server, and gives the experiment's keys for it."""
    servers: list[Server] = []

    def started(script: Script, **options: Any) -> dict[str, Any]:
        server = Server(script, key=options.pop("key", ""))
        servers.append(server.__enter__())
        engine = {"kind": "openai", "base_url": server.url, **options}
        return {**EXPERIMENT, "hardware": None, "slo": None, "emulation": None, "engines": [engine]}

    yield started
    for server in servers:
        server.__exit__()


def test_plan_validate_run_report(
    call: Call, write: Write, tmp_path: Path, endpoint: Callable[..., dict[str, Any]]
) -> None:
    keys = endpoint(correct(gap_s=0.002))
    config = write(**{**keys, "measure": {**EXPERIMENT["measure"], "repeats": 2}})
    assert "2 cells on endpoint (measured" in call("validate", "--config", config).out
    plan = json.loads(call("plan", "--config", config, "--json").out)
    assert (plan["backend"], plan["label"], plan["cells"][0]["about_s"]) == ("endpoint", "measured", None)
    answer = call("run", "--config", config, "--out", tmp_path / "runs", "--json")
    assert answer.code == 0, answer.err
    outcome = json.loads(answer.out)
    assert [cell["label"] for cell in outcome["cells"]] == ["measured"] * 2
    assert outcome["cells"][0]["resolved"]["served_model"] == "tiny"
    page = Path(outcome["run_dir"]) / "report.html"
    page.unlink()
    assert call("report", outcome["run_dir"]).code == 0
    assert "127.0.0.1" in page.read_text()
    compared = call("compare", outcome["run_dir"], outcome["run_dir"])
    assert compared.code == 0, compared.err


def test_backend_by_the_command_line(call: Call, write: Write, endpoint: Callable[..., dict[str, Any]]) -> None:
    config = write(**{**endpoint(correct()), "backend": "cpu", "emulation": {"mode": "native"}})
    assert "on cpu (emulated" in call("validate", "--config", config).out
    assert "on endpoint (measured" in call("validate", "--config", config, "--backend", "endpoint").out


def test_a_server_that_is_gone_fails_its_cell_in_one_line(
    call: Call, write: Write, tmp_path: Path, endpoint: Callable[..., dict[str, Any]]
) -> None:
    keys = endpoint(correct())
    keys["engines"][0]["base_url"] = "http://127.0.0.1:9/v1"
    answer = call("run", "--config", write(**keys), "--out", tmp_path / "runs", "--json")
    assert answer.code == 4
    (cell,) = json.loads(answer.out)["cells"]
    assert cell["status"] == "failed"
    assert "GET /models: no connection: Connection refused; start the server first" in cell["error"]


def test_the_key_is_in_no_file_and_in_no_output(
    call: Call,
    write: Write,
    tmp_path: Path,
    endpoint: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a server that shouts it at every turn."""
    shouting = {
        1: status(403, error_body(f"Bearer {KEY}")),
        2: sends(error_body(KEY)),
        3: sends(KEY.encode()),
        4: status(429, KEY.encode(), Retry_After=KEY),
    }
    monkeypatch.setenv("THE_KEY", KEY)
    keys = endpoint(faulty(shouting, which=lambda ask: ask.number), key=KEY, api_key_env="THE_KEY")
    answer = call("run", "--config", write(**keys), "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    monkeypatch.setenv("THE_KEY", f"{KEY}-wrong")
    refused = call("run", "--config", write(**keys), "--out", tmp_path / "runs")
    assert refused.code == 4, "a cell that fails leaves its last words"
    for shown in (answer, refused):
        assert KEY not in shown.out + shown.err
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 12
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    tables = [read_requests(path.parent) for path in files if path.name == "requests.parquet"]
    told = [reason for table in tables for reason in table.reason]  # a parquet file may be compressed
    assert any("[key]" in reason for reason in told)
    assert not any(KEY in reason for reason in told)


def test_generate_by_an_endpoint(
    call: Call, tmp_path: Path, folder: Path, endpoint: Callable[..., dict[str, Any]]
) -> None:
    url = endpoint(correct(greedy(folder)))["engines"][0]["base_url"]
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps({"id": number, "prompt_token_ids": [number + 3, 5, 7]}) for number in range(3)]
    prompts.write_text("\n".join(lines))
    words = ["generate", "--engine", "openai", "--backend", "endpoint", "--model", folder, "--dtype", "float32"]
    words += ["--prompts", prompts, "--max-new-tokens", "5", "--out", out, "--ignore-eos"]
    answer = call(*words, "--policy-option", f"base_url={url}")
    assert answer.code == 0, answer.err
    expected = [greedy(folder)([number + 3, 5, 7], 5) for number in range(3)]
    assert [json.loads(line)["token_ids"] for line in out.read_text().splitlines()] == expected


def test_generate_ends_with_the_reason_where_a_prompt_fails(
    call: Call, tmp_path: Path, folder: Path, endpoint: Callable[..., dict[str, Any]]
) -> None:
    url = endpoint(faulty({1: status(429)}, which=lambda ask: ask.number))["engines"][0]["base_url"]
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text("\n".join(json.dumps({"id": f"p{number}", "prompt_token_ids": [5]}) for number in range(3)))
    words = ["generate", "--engine", "openai", "--backend", "endpoint", "--model", folder, "--dtype", "float32"]
    words += ["--prompts", prompts, "--max-new-tokens", "5", "--out", out, "--ignore-eos"]
    answer = call(*words, "--policy-option", f"base_url={url}")
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert "failed: rate_limited: 429 Too Many Requests" in answer.errors[0]
    assert not out.exists()
