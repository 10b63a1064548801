"""Every mistake a user can make gives one clear line and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.conftest import Answer, Call, Write

HUGGING_FACE_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def refused(call: Call, config: Path, *more: object) -> Answer:
    """The answer of `run` and of `validate` must be the same refusal."""
    out = config.parent / "runs"
    answer = call("run", "--config", config, "--out", out, *more)
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err
    assert not out.exists()
    assert call("validate", "--config", config, *more) == answer
    return answer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": {"max_bach": 8}}, ["budget.max_bach: unknown key", '"max_batch"']),
        ({"bugdet": {}}, ["bugdet: unknown key", '"budget"']),
        ({"slo": {"ttft": 1}}, ["slo.ttft: unknown key", '"ttft_s"']),
        ({"budget": {"max_batch": "many"}}, ["budget.max_batch", "integer", "'many'"]),
        ({"budget": {"max_batch": True}}, ["budget.max_batch", "expected a number"]),
        ({"budget": {"accel_memory": "14 gallons"}}, ["budget.accel_memory", "14.6GiB"]),
        ({"budget": 5}, ["budget: expected keys and values, not 5"]),
        ({"engines": "gpu_only"}, ["engines: expected a list, not 'gpu_only'"]),
        ({"workloads": [{"kind": "chat", "rate": float("nan")}]}, ["rate", "nan"]),
        ({"workloads": [{"kind": "chat", "requests": float("inf")}]}, ["requests", "inf"]),
        ({"dtype": "bfloat16"}, ["dtype", "bfloat16"]),
        ({"measure": {"repeats": 0}}, ["measure.repeats", "not 0"]),
        ({"measure": {"time_limit_s": float("nan")}}, ["measure.time_limit_s", "nan"]),
        ({"name": "../escape"}, ["name", "../escape"]),
        ({"schema_version": 2}, ["schema_version", "2"]),
        ({"model": None}, ["model: missing"]),
        ({"model": "/no/such/folder"}, ["model", "/no/such/folder"]),
        ({"model": "llama-2-7"}, ["model", "llama-2-7b"]),
        ({"hardware": "t4"}, ["hardware", '"t4_g4dn_4xlarge"']),
        ({"hardware": None}, ["hardware: missing"]),
        ({"backend": "gpu"}, ["backend", "'cuda'"]),
        ({"engines": []}, ["engines"]),
        ({"engines": ["gpu_olny"]}, ["engines.0.kind", '"gpu_only"']),
        ({"engines": [{"kind": "gpu_only", "admitt": "chunk"}]}, ["engines.0.admitt", '"admit"']),
        ({"engines": [{"kind": "gpu_only", "admit": "never"}]}, ["engines.0.admit", "'chunk'"]),
        ({"engines": ["gpu_only", "gpu_only"]}, ["engines.1.name", "used twice"]),
        ({"engines": [7]}, ["engines.0", "expected an engine's name"]),
        ({"workloads": ["chat"]}, ["workloads.0", "expected a mapping"]),
        ({"workloads": [{"kind": "chatt"}]}, ["workloads.0", "chat"]),
        ({"workloads": [{"kind": "chat", "rate": -1}]}, ["rate", "-1"]),
        ({"workloads": [{"kind": "batch", "batch": 2}, {"kind": "batch", "batch": 3}]}, ["batch", "twice"]),
        ({"budget": {"accel_kv_tokens": 16}}, ["budget", "16"]),
        ({"budget": {"accel_memory": "1MiB"}}, ["budget", "accel_memory"]),
        ({"slo": {}}, ["slo", "ttft_s"]),
    ],
)
def test_one_mistake_one_line(call: Call, write: Write, changes: dict[str, Any], said: list[str]) -> None:
    answer = refused(call, write(**changes))
    assert len(answer.errors) == 1, answer.err
    for words in said:
        assert words in answer.errors[0]


def test_all_mistakes_are_told_at_once_with_their_lines(call: Call, write: Write) -> None:
    config = write(budget={"max_bach": 1}, model="nothing", engines=["nobody"], workloads=[{"kind": "nowhere"}])
    answer = refused(call, config)
    assert [line.split(": ")[2] for line in answer.errors] == [
        "model",
        "budget.max_bach",
        "engines.0.kind",
        "workloads.0",
    ]
    lines = config.read_text().splitlines()
    where = answer.errors[1].split(": ")[1]
    assert where == f"experiment.yaml:{lines.index('  max_bach: 1') + 1}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"# nothing\n", "empty"),
        (b"- a\n- b\n", "keys and values"),
        (b"name: x\n  bad: [\n", "bad.yaml:2: not valid YAML"),
        (b"name: x\n---\nname: y\n", "not valid YAML"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"name: x\nmodel: !!python/object/apply:os.system [echo]\n", "bad.yaml:2: model: the tag !!python/object"),
        (b"name: x\nname: y\n", "bad.yaml:2: name: this key is given twice"),
        (b"a: &x 1\nb: *x\n", "aliases are not supported"),
        (b"a: &x [*x]\n", "aliases are not supported"),
        (b"name: 2024-01-01\n", "put it in quotes"),
        (b"on: 1\n", "not text"),
        (b"name: \x00\n", "not valid YAML"),
        (b"name: !!int twelve\n", "not valid YAML"),
        (b"name: " + b"9" * 5000, "not valid YAML"),
        (b"a: " + b"[" * 600, "bad.yaml"),
    ],
)
def test_a_file_that_is_no_plain_yaml(call: Call, tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    answer = refused(call, path)
    assert len(answer.errors) == 1, answer.err
    assert said in answer.errors[0]


def test_a_config_that_is_not_there(call: Call, tmp_path: Path) -> None:
    for name in ("quickstat", "quickstat.yaml", tmp_path / "gone" / "quickstat.yaml", tmp_path):
        answer = call("run", "--config", name, "--out", tmp_path / "runs")
        assert answer.code == 2
        assert len(answer.errors) == 1
        assert "quickstart" in answer.errors[0]


def test_a_trace_line_that_is_no_request_is_named_by_its_number(call: Call, write: Write, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"arrival_s": 0, "prompt_tokens": 4, "output_tokens": 4}\n{"arrival_s": 1, "prompt_tokens": 4}\n')
    answer = refused(call, write(workloads=[{"kind": "trace", "path": str(trace)}]))
    assert len(answer.errors) == 1
    assert "trace.jsonl:2: " in answer.errors[0]
    assert "output_tokens" in answer.errors[0]


def test_cuda_without_a_gpu(call: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.plan.local_gpus", lambda: ([], "no NVIDIA driver"))
    answer = refused(call, write(backend="cuda"))
    assert "no NVIDIA driver" in answer.errors[0]
    assert "--backend sim" in answer.errors[0]


def model_folder(path: Path, weights: bytes | None) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(HUGGING_FACE_CONFIG))
    if weights is not None:
        (path / "model.safetensors").write_bytes(weights)
    return path


@pytest.mark.parametrize("weights", [None, b"", b"not safetensors at all", b"\xff" * 64])
def test_weights_that_are_missing_or_corrupt(call: Call, write: Write, tmp_path: Path, weights: bytes | None) -> None:
    folder = model_folder(tmp_path / "model", weights)
    answer = refused(call, write(model=str(folder), backend="cpu", dtype="float32"))
    assert len(answer.errors) == 1, answer.err
    assert "safetensors" in answer.errors[0]


def test_sets_that_do_not_fit(call: Call, write: Write) -> None:
    assert "expected KEY=VALUE" in refused(call, write(), "--set", "nonsense").errors[0]
    answer = refused(call, write(), "--set", "engines.5.kind=x", "--set", "name.first=y", "--set", "model=[")
    assert len(answer.errors) == 3
    assert all(line.startswith("error: --set: ") for line in answer.errors)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "gpu_olny"), '"gpu_only"'),
        (("--policy-option", "admitt=chunk"), '"admit"'),
        (("--policy-option", "admit"), "KEY=VALUE"),
        (("--dtype", "int8"), "float32"),
        (("--emulation", "fast"), "native or paced"),
        (("--emulation", "paced"), "--hardware"),
        (("--backend", "sim"), "computes no tokens"),
    ],
)
def test_generate_refuses_before_loading(call: Call, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = call("generate", "--prompts", "x", "--model", "tiny-1m", "--out", tmp_path / "out", *arguments)
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert said in answer.errors[0]
    assert not (tmp_path / "out").exists()
