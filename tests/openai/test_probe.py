"""What a server takes and gives is found out before serving, or said in one line when it cannot be used."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from engines.openai.errors import EndpointError
from tests.openai.scripts import begun, correct, cut, sends_raw, status
from tests.openai.server import Ask, Script, Server, error_body
from tests.openai.worlds import Outcome, opened, served

KEY = "sk-of-the-test"


def started(server: Server, tmp_path: Path, **options: Any) -> dict[str, object]:
    adapter, _ = opened(server, tmp_path, **options)
    try:
        resolved: dict[str, object] = adapter.start()
        return resolved
    finally:
        adapter.close()


def complaint(server: Server, tmp_path: Path, **options: Any) -> str:
    """One line, with the address in it."""
    adapter, _ = opened(server, tmp_path, **options)
    with pytest.raises(EndpointError) as raised:
        adapter.start()
    text = str(raised.value)
    assert text.startswith(server.url)
    assert len(text.splitlines()) == 1
    return text


def fields_of(ask: Ask) -> set[str]:
    return set(ask.body) - {"model", "prompt", "messages", "stream", "max_tokens"}


def test_a_server_like_vllm(tmp_path: Path) -> None:
    with Server(correct(), models=[{"id": "llama", "max_model_len": 4096}], version="1.2.3") as server:
        found = served(server, tmp_path)
    assert found.statuses == ["finished"]
    expected = {
        "endpoint": server.url,
        "served_model": "llama",
        "server": "version 1.2.3",
        "api_key": "none",
        "prompts": "token_ids to /completions",
        "prompt_tokens_added": 0,
        "fields_taken": "temperature, include_usage, ignore_eos, return_token_ids",
        "answer_length": "forced by ignore_eos",
        "tokens_counted_by": "token ids in the stream",
        "usage": "held against every answer",
        "longest_request_tokens": 4096,
    }
    assert expected.items() <= found.resolved.items()
    (probe, ask) = server.asks
    assert ask.body == {
        "model": "llama",
        "prompt": [30, 7, 8, 9],
        "max_tokens": 5,
        "stream": True,
        "temperature": 0,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "ignore_eos": True,
    }
    assert probe.number == -1


@pytest.mark.parametrize("refused", ["temperature", "include_usage", "ignore_eos", "return_token_ids"])
def test_a_field_that_is_refused_is_left_out(tmp_path: Path, refused: str) -> None:
    with Server(correct(refuses=[refused])) as server:
        found = served(server, tmp_path, requests=2)
    assert found.statuses == ["finished"] * 2
    names = {"include_usage": "stream_options"}
    expected = {"temperature", "stream_options", "ignore_eos", "return_token_ids"} - {names.get(refused, refused)}
    if refused == "ignore_eos":
        expected |= {"min_tokens"}
    assert all(fields_of(ask) == expected for ask in server.serving)
    assert refused not in str(found.resolved["fields_taken"])


def test_min_tokens_where_there_is_no_ignore_eos(tmp_path: Path) -> None:
    with Server(correct(refuses=["ignore_eos"])) as server:
        found = served(server, tmp_path)
    assert server.serving[0].body["min_tokens"] == 5
    assert found.resolved["answer_length"] == "forced by min_tokens"
    assert "min_tokens keeps the model's stop tokens out" in str(found.resolved["no_token_ids"])


def test_a_server_that_takes_nothing_optional(tmp_path: Path) -> None:
    refuses = ("temperature", "stream_options", "ignore_eos", "min_tokens", "return_token_ids")
    with Server(correct(refuses=refuses)) as server:
        found = served(server, tmp_path)
    assert found.statuses == ["finished"]
    assert fields_of(server.serving[0]) == set()
    assert found.resolved["fields_taken"] == "none of the optional ones"
    assert "not forced" in str(found.resolved["answer_length"])
    assert "not told" in str(found.resolved["usage"])


def test_newer_names_of_the_length(tmp_path: Path) -> None:
    with Server(correct(refuses=["max_tokens", "temperature"])) as server:
        assert served(server, tmp_path).statuses == ["finished"]
    assert server.serving[0].body["max_completion_tokens"] == 5
    assert "max_tokens" not in server.serving[0].body


def test_token_ids_that_are_ignored_are_missed(tmp_path: Path) -> None:
    with Server(correct(ignores=["return_token_ids", "continuous_usage_stats"], per_chunk=2)) as server:
        found = served(server, tmp_path, requests=2)
    assert found.statuses == ["finished"] * 2
    assert [len(answer) for answer in found.answers.values()] == [5, 7]
    assert found.resolved["tokens_counted_by"] == "chunks with text, settled by the usage at the end"
    assert found.resolved["no_token_ids"] == "the server gives no token ids"
    assert "return_token_ids" not in server.serving[0].body


def test_a_running_usage_is_the_second_best_count(tmp_path: Path) -> None:
    with Server(correct(ignores=["return_token_ids"], per_chunk=3)) as server:
        found = served(server, tmp_path, requests=2)
    assert found.statuses == ["finished"] * 2
    assert found.resolved["tokens_counted_by"] == "the running usage in each chunk"
    assert server.serving[0].body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert [len(set(row["token_times_s"])) <= 2 + row["request_id"] for row in found.rows] == [True, True]


def test_chunks_coarser_than_tokens_are_told(tmp_path: Path) -> None:
    with Server(correct(per_chunk=4)) as server:
        assert "coarser than tokens, 4.00 each" in str(started(server, tmp_path)["chunks"])
        found = served(server, tmp_path)
    assert found.resolved["tokens_per_chunk"] == 2.5, "5 tokens in two"
    assert "2.50 each" in str(found.resolved["chunks"])
    with Server(correct()) as server:
        found = served(server, tmp_path)
    assert found.resolved["tokens_per_chunk"] == 1.0
    assert "chunks" not in found.resolved


def test_tokens_that_the_server_adds_are_found_and_expected(tmp_path: Path) -> None:
    with Server(correct(added=1)) as server:
        found = served(server, tmp_path, requests=3)
    assert found.statuses == ["finished"] * 3
    assert found.resolved["prompt_tokens_added"] == 1
    assert "adds 1 tokens of its own" in str(found.resolved["no_token_ids"])


@pytest.mark.parametrize("form", ["text", "chat"])
def test_texts_and_chats(tmp_path: Path, tokenizer: Path, form: str) -> None:
    """The server counts with the same tokenizer, as a real one does."""
    from engines.openai.prompts import load_tokenizer

    known = load_tokenizer(str(tokenizer))

    def count(ask: Ask) -> int:
        if form == "text":
            return len(known(ask.body["prompt"])["input_ids"])
        text = known.apply_chat_template(ask.body["messages"], add_generation_prompt=True, tokenize=False)
        return len(known(text, add_special_tokens=False)["input_ids"])

    with Server(correct(prompt_tokens=count)) as server:
        options = {"prompt": form, "tokenizer": str(tokenizer)}
        found = long_served(server, tmp_path, **options)
    assert found.statuses == ["finished"] * 3
    assert {ask.path for ask in server.asks} == {"completions" if form == "text" else "chat/completions"}
    assert sorted(count(ask) for ask in server.serving) == [40, 41, 42]
    assert f"sent as {form}" in str(found.resolved["no_token_ids"])


def test_a_prompt_that_no_text_has_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    with Server(correct(prompt_tokens=lambda ask: 0)) as server:
        found = served(server, tmp_path, prompt="chat", tokenizer=str(tokenizer))
    assert found.statuses == ["refused"]
    assert "no prompt of 4 tokens as chat, the nearest has" in found.reasons[0]


def long_served(server: Server, tmp_path: Path, **options: Any) -> Outcome:
    from tests.openai.worlds import outcome, workload

    prompts = {number: [(7 * place + number) % 500 for place in range(40 + number)] for number in range(3)}
    work = workload(*[(0.0, prompt, 5) for prompt in prompts.values()])
    return outcome(server, tmp_path, work, prompts, **options)


def test_extra_fields_are_in_every_request(tmp_path: Path) -> None:
    with Server(correct()) as server:
        served(server, tmp_path, extra_body={"top_p": 0.5, "chat_template_kwargs": {"thinking": False}})
    assert len(server.asks) == 2
    assert all(ask.body["top_p"] == 0.5 and ask.body["chat_template_kwargs"] for ask in server.asks)


# --- which model ------------------------------------------------------------------------------------------------------


def test_several_models_ask_for_a_choice(tmp_path: Path) -> None:
    with Server(correct(), models=[{"id": "a"}, {"id": "b"}]) as server:
        assert 'served_model: give one; there is "a", "b"' in complaint(server, tmp_path)
        assert 'served_model: "c" is not there; there is "a", "b"' in complaint(server, tmp_path, served_model="c")
        assert started(server, tmp_path, served_model="b")["served_model"] == "b"
    assert server.asks[-1].body["model"] == "b"


def test_many_models_are_not_all_listed(tmp_path: Path) -> None:
    with Server(correct(), models=[{"id": f"m{number}"} for number in range(1000)]) as server:
        assert '"m7" and 992 more' in complaint(server, tmp_path)


@pytest.mark.parametrize("models", [[], [{"name": "a"}], [3, None], [{"id": 4}]])
def test_no_model_at_all(tmp_path: Path, models: list[Any]) -> None:
    with Server(correct(), models=models) as server:
        assert "served_model: give one; there is none" in complaint(server, tmp_path)


def test_a_request_that_the_server_could_not_hold_is_said_once(tmp_path: Path) -> None:
    with Server(correct(), models=[{"id": "a", "max_model_len": 48}]) as server:
        said = complaint(server, tmp_path)
    assert "holds requests of up to 48 tokens, the longest here has 64" in said
    assert "set budget.accel_kv_tokens to 32 or fewer" in said


# --- what cannot be used ----------------------------------------------------------------------------------------------


def test_nobody_is_there(tmp_path: Path) -> None:
    with socket.socket() as taken, Server(correct()) as server:
        taken.bind(("127.0.0.1", 0))
        server.port = taken.getsockname()[1]
        assert "GET /models: no connection: Connection refused; start the server first" in complaint(server, tmp_path)


def test_a_wrong_path(tmp_path: Path) -> None:
    with Server(correct()) as server:
        adapter, _ = opened(server, tmp_path, base_url=f"http://127.0.0.1:{server.port}")
        with pytest.raises(EndpointError, match=r"404 Not Found.*base_url to end in /v1"):
            adapter.start()


def test_a_key_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(correct(), key=KEY) as server:
        assert "401 Unauthorized: wrong key: None; the key is taken from OPENAI_API_KEY" in complaint(server, tmp_path)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
        said = complaint(server, tmp_path)
        assert "wrong key: Bearer [key]" in said
        assert "sk-wrong" not in said
        monkeypatch.setenv("MINE", KEY)
        assert started(server, tmp_path, api_key_env="MINE")["api_key"] == "from MINE"


@pytest.mark.parametrize(
    ("probed", "message"),
    [
        (status(404, error_body("no such model")), "rejected: 404 Not Found: no such model"),
        (status(500, b"<html>down</html>"), "server_error: 500 Internal Server Error: <html>down</html>"),
        (status(429, Retry_After="7"), "rate_limited: 429 Too Many Requests: Retry-After: 7"),
        (status(400, error_body("only batches")), "refuses the plainest request: 400 Bad Request: only batches"),
        (status(307, Location="http://elsewhere/v1"), "307 Temporary Redirect to: http://elsewhere/v1"),
        (
            sends_raw(b'{"choices": [{"text": "a"}]}', "application/json"),
            "garbage: the answer is no stream of events: {",
        ),
        (sends_raw(b""), "garbage: the answer is no stream of events"),
        (begun(2, cut), "cut: the connection ended before the answer did"),
    ],
)
def test_a_first_request_that_fails_is_the_end(tmp_path: Path, probed: Script, message: str) -> None:
    with Server(correct(), probed=probed) as server:
        assert message in complaint(server, tmp_path)
    assert server.serving == []


def test_a_list_of_models_that_is_none(tmp_path: Path) -> None:
    class Other(Server):
        @property
        def url(self) -> str:
            return f"http://127.0.0.1:{self.port}"

    with Other(correct()) as server:  # /models without /v1 is a 404 there
        assert "404" in complaint(server, tmp_path)
        assert "404" in complaint(server, tmp_path, served_model="tiny"), "and so is /completions"
