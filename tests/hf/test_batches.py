"""Static batching: who runs with whom, what of it is within the envelope, and what the steps say of it."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import pytest
import torch

from engines.hf.worker import Batch, Request
from tests.hf.conftest import Load
from tests.hf.engines import Asked, batches, opened, serve
from tests.model_folders import make_folder


@pytest.fixture(scope="module")
def folder(model_root: Path) -> Path:
    return make_folder(model_root, layers=1)


def asked(*lengths: tuple[int, int]) -> list[Asked]:
    return [Asked([5 + index] * prompt, new) for index, (prompt, new) in enumerate(lengths)]


def test_prompts_are_padded_on_the_left() -> None:
    found = Batch([Request(1, [7], 2), Request(2, [8, 9, 10], 4)], 16).inputs(torch.device("cpu"))
    assert found["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]
    assert found["input_ids"][1].tolist() == [8, 9, 10]
    assert found["input_ids"][0, 2] == 7


def test_a_batch_says_who_still_wants_a_token_and_what_it_holds() -> None:
    """Rows of those who have ended stay, and so does their KV."""
    batch = Batch([Request(4, [1, 2], 1), Request(5, [1] * 7, 3), Request(6, [1], 9, frozenset({30}))], page_tokens=4)
    first, second, third = (batch.passed(tokens) for tokens in ([10, 20, 29], [11, 21, 30], [12, 22, 32]))
    assert (first["ids"], first["tokens"], first["finished"]) == ([4, 5, 6], [10, 20, 29], [4])
    assert (second["ids"], second["tokens"], second["finished"]) == ([5, 6], [21, 30], [6])
    assert (third["ids"], third["tokens"], third["finished"]) == ([5], [22], [5])
    assert batch.live == []
    assert first["facts"] == {
        "decode_rows": 0,
        "prefill_rows": 3,
        "prefill_tokens": 10,
        "running": 3,
        "accel_blocks_used": 6,  # 3 rows of 7
    }
    assert third["facts"] == {
        "decode_rows": 1,
        "prefill_rows": 0,
        "prefill_tokens": 0,
        "running": 1,
        "accel_blocks_used": 7,  # 3 rows of 9
    }


def test_the_oldest_run_together_as_far_as_they_fit(folder: Path, tmp_path: Path) -> None:
    """All are padded to the longest, so that the third, a short one, would take as much as the first. Nobody overtakes
    the fourth, either, which does not fit beside the third."""
    requests = asked((100, 20), (90, 30), (5, 5), (200, 10), (3, 2), (2, 2))
    with opened(folder, tmp_path / "files", accel_kv_tokens=304) as engine:
        _, steps = serve(engine, requests)
    assert batches(steps) == [[0, 1], [2], [3], [4, 5]]
    assert max(step["facts"]["accel_blocks_used"] for step in steps) * 16 <= 304
    assert [step["facts"]["waiting"] for step in steps if step["admitted"]] == [4, 3, 2, 0]


@pytest.mark.parametrize(
    "limit", [{"max_batch": 3}, {"batch": 3}, {"max_batch_tokens": 3}], ids=["max_batch", "batch", "max_batch_tokens"]
)
def test_no_more_run_than_are_allowed(folder: Path, tmp_path: Path, limit: dict[str, int]) -> None:
    """A step feeds a token of each of them, so max_batch_tokens limits them, too."""
    with opened(folder, tmp_path / "files", **limit) as engine:
        _, steps = serve(engine, asked(*[(4, 2)] * 7))
        assert engine.resolved["max_batch"] == 3
    assert batches(steps) == [[0, 1, 2], [3, 4, 5], [6]]


def test_no_row_goes_beyond_the_models_context(folder: Path, tmp_path: Path) -> None:
    """1,024 positions: each fits alone, but a long prompt and a long answer are not padded to each other."""
    with opened(folder, tmp_path / "files", batch=4) as engine:
        _, steps = serve(engine, asked((1000, 3), (5, 30), (6, 31)))
    assert batches(steps) == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("prompt", "new", "why"),
    [
        (60, 6, "it needs KV for 65 tokens, the accelerator holds 64"),
        (1000, 25, "it needs 1025 tokens, the model's context ends at 1024"),
    ],
    ids=["KV", "context"],
)
def test_what_can_never_run_is_refused_with_the_numbers(
    folder: Path, tmp_path: Path, prompt: int, new: int, why: str
) -> None:
    with opened(folder, tmp_path / "files", accel_kv_tokens=64) as engine:
        with pytest.raises(ValueError, match=f"^{why}$"):
            engine.submit(1, [5] * prompt, new, [])
        assert not engine.busy
        engine.submit(2, [5] * 60, 5, [])  # the last token is never fed back, so it needs no place
        assert engine.busy


def test_steps_follow_one_another_and_are_the_models(load: Load, tmp_path: Path) -> None:
    begun_s = time.perf_counter()
    with opened(load.folder, tmp_path / "files", max_batch=3) as engine:
        ready_s = time.perf_counter()
        _, steps = serve(engine, load.requests)
    moments_s = [begun_s, ready_s, *(step[name] for step in steps for name in ("begun_s", "ended_s"))]
    assert moments_s == sorted(moments_s)
    for step in steps:
        facts = step["facts"]
        assert facts["accel_s"] + facts["scheduler_s"] == pytest.approx(step["ended_s"] - step["begun_s"])
        assert facts["scheduler_s"] == 0 or step["admitted"]
    assert sum(step["facts"]["prefill_tokens"] for step in steps) == sum(len(each.token_ids) for each in load.requests)
    assert sum(step["facts"]["decode_rows"] for step in steps) == sum(each.new_tokens - 1 for each in load.requests)


def test_it_can_be_closed_in_the_middle_of_a_batch(folder: Path, tmp_path: Path) -> None:
    with opened(folder, tmp_path / "files") as engine:
        engine.submit(1, [5] * 10, 1000, [])
        assert engine.step()["ids"] == [1]
    assert not engine._thread.is_alive()


def test_what_goes_wrong_in_the_model_is_raised_by_the_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder, tmp_path / "files") as engine:
        engine.submit(1, [5] * 10, 1000, [])
        engine.step()
        monkeypatch.setattr(Batch, "passed", lambda batch, tokens: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            deque(iter(engine.step, None), maxlen=0)  # until it raises
