"""Mistakes in the options are named before anything is asked of a server, and never with a key in the message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.openai.options import HOW_TO_GET_IT, OpenAi
from engines.registry import is_policy, option_mistakes
from harness.build import check
from tests.harness.conftest import Call, Write
from tests.openai.worlds import EXPERIMENT, cell_spec

LOCAL = "http://127.0.0.1:8000/v1"
REMOTE = "https://api.example.com/v1"
KEY = "sk-proj-abcDEF123"


def mistakes(**options: Any) -> str:
    return "; ".join(message for _, message in option_mistakes("openai", {"base_url": LOCAL, **options}))


def test_it_is_an_engine_of_its_own_with_one_option_to_give() -> None:
    assert not is_policy("openai")
    assert mistakes() == ""
    assert option_mistakes("openai", {}) == [("base_url", "missing")]
    assert OpenAi(base_url=LOCAL + "/").url == LOCAL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url: expected something like"),
        ({"base_url": "ftp://here/v1"}, "base_url: expected something like"),
        ({"base_url": "http://here:99999/v1"}, "base_url: not a URL"),
        ({"base_url": "http://[::1/v1"}, "base_url: not a URL"),
        ({"base_url": "http://here/v1?a=b"}, "base_url: no ?"),
        ({"base_url": "http://here/v1#a"}, "base_url: no ?"),
        ({"base_url": "http://here/v 1"}, "base_url: no ?"),
        ({"prompt": "tokens"}, "'token_ids', 'text' or 'chat'"),
        ({"prompt": "text"}, "tokenizer: prompt: text needs the folder"),
        ({"silence_timeout_s": 0}, "silence_timeout_s: must be above 0"),
        ({"request_timeout_s": float("inf")}, "request_timeout_s: must be above 0 and finite"),
        ({"retries": -1}, "retries: must be 0 or more"),
        ({"max_connections": 0}, "max_connections: must be 1 or more"),
        ({"extra_body": {"max_tokens": 3, "top_p": 1}}, "extra_body: max_tokens cannot be set"),
        ({"extra_body": {"stream": False, "n": 2}}, "extra_body: n, stream cannot be set"),
        ({"retrys": 1}, 'did you mean "retries"'),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    assert message in mistakes(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key_env": KEY},
        {"base_url": f"https://user:{KEY}@api.example.com/v1"},
        {"base_url": f"https://{KEY}@api.example.com/v1"},
        {"base_url": f"https://api.example.com/v1?key={KEY}"},
    ],
)
def test_a_key_among_the_options_is_refused_and_not_shown(options: dict[str, Any], call: Call, write: Write) -> None:
    assert mistakes(**options)
    assert KEY not in mistakes(**options)
    engine = {"kind": "openai", "base_url": LOCAL, **options}
    answer = call("validate", "--config", write(**EXPERIMENT | {"engines": [engine]}))
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert KEY not in answer.out + answer.err


def test_where_it_can_run() -> None:
    local, remote = OpenAi(base_url=LOCAL), OpenAi(base_url=REMOTE)
    assert local.problems("endpoint", False) == remote.problems("endpoint", False) == []
    for backend in ("cpu", "cuda"):
        assert local.problems(backend, False) == []
        assert f"which backend {backend} speaks of; set backend: endpoint" in remote.problems(backend, False)[0]
    assert "simulated time" in local.problems("sim", False)[0]
    assert "cannot be paced" in local.problems("cpu", True)[0]


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("192.168.0.4", False),
        ("localhost.example.com", False),
        ("[fe80::1]", False),
    ],
)
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert (OpenAi(base_url=f"http://{host}:8000/v1").problems("cpu", False) == []) == here


def test_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = OpenAi(base_url=LOCAL, api_key_env="MY_KEY", prompt="text", tokenizer=str(tmp_path / "absent"))
    monkeypatch.delenv("MY_KEY", raising=False)
    found = engine.problems("endpoint", False)
    assert "no folder at" in found[0]
    assert "MY_KEY is not set" in found[1]
    monkeypatch.setenv("MY_KEY", KEY)
    assert replace(engine, tokenizer=str(tmp_path)).problems("endpoint", False) == []
    assert OpenAi.unavailable() is None
    monkeypatch.setattr("engines.openai.options.find_spec", lambda name: None)
    assert OpenAi.unavailable() == HOW_TO_GET_IT
    assert OpenAi(base_url=LOCAL).problems("endpoint", False) == [HOW_TO_GET_IT]
    assert "pip install 'hybrid-harness[openai]'" in HOW_TO_GET_IT


def test_the_key_is_not_among_what_a_cell_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    engine = OpenAi(base_url=LOCAL)
    assert KEY not in repr(engine)


@pytest.mark.parametrize("engine", ["gpu_only", "mock"])
def test_nothing_of_ours_runs_under_the_label_of_an_endpoint(call: Call, write: Write, engine: str) -> None:
    answer = call("validate", "--config", write(**EXPERIMENT | {"engines": [engine]}))
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert engine in answer.err


def test_a_cell_is_checked_without_a_server() -> None:
    """Whether one is there shows when the cell starts, and not before: validate and plan ask nobody."""
    assert check(cell_spec("http://127.0.0.1:9/v1")) == []
