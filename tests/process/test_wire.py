"""What a worker says arrives, in order and whole; what is sent to it does too, and a burst arrives as a burst."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engines.core.adapter import EngineStep, Failure
from engines.process.adapter import LOG_FILE
from tests.process.workers import ECHO, adapter, answers, deliveries, echo, request, site, telling

HUGE = 300_000  # tokens: megabytes on a wire that holds 64 KiB


def test_requests_are_answered_a_step_at_a_time(tmp_path: Path) -> None:
    steps: list[EngineStep] = []
    place = site(tmp_path, on_step=steps.append)
    engine = adapter(tmp_path, ECHO, place)
    resolved = engine.start()
    begun_s = place.clock.now()
    found = deliveries(engine, [request(7, [3, 4], 3), request(8, [5], 1), request(9, [6, 1, 6], 5, stop_ids=(1,))])
    engine.close()
    assert resolved["dtype"] == "float32"
    assert answers(found) == {7: [3, 4, 3], 8: [5], 9: [6, 1]}
    assert [sorted(delivery.finished) for delivery in found] == [[8], [9], [7]]
    assert [list(delivery.admitted) for delivery in found] == [[7, 8, 9], [], []]
    assert [step.running for step in steps] == [3, 2, 1], "those that are due together come in together"
    moments_s = [begun_s, *(time_s for step in steps for time_s in (step.started_s, step.ended_s)), place.clock.now()]
    assert moments_s == sorted(moments_s), "the engine's times are on the run's clock"
    for delivery, step in zip(found, steps, strict=True):
        assert step.ended_s <= delivery.time_s
        assert delivery.scheduled_s == step.started_s


def test_a_request_that_cannot_be_served_fails_alone(tmp_path: Path) -> None:
    engine = adapter(tmp_path, ECHO)
    engine.start()
    found = deliveries(engine, [request(1, [], 2), request(2, [9], 2)])
    engine.close()
    failures = [failure for delivery in found for failure in delivery.failed]
    assert failures == [Failure(1, "refused", "it is empty, and this engine repeats what it reads")]
    assert answers(found) == {2: [9, 9]}


def test_messages_larger_than_the_pipe_pass_both_ways(tmp_path: Path) -> None:
    prompt = list(range(HUGE))
    whole = """
    def step(self):
        queue, self.queue = self.queue, []
        return {
            "ids": [request[0] for request in queue for _ in request[1]],
            "tokens": [token for request in queue for token in request[1]],
            "finished": [request[0] for request in queue],
            "begun_s": 0,
            "ended_s": 0,
        }
    """
    engine = adapter(tmp_path, echo(whole))
    engine.start()
    found = answers(deliveries(engine, [request(each, prompt, 1) for each in (1, 2)]))
    engine.close()
    assert found == {1: prompt, 2: prompt}


def test_what_an_engine_prints_goes_to_its_log(tmp_path: Path) -> None:
    noise = (
        "import sys\nprint('loading'); sys.stdout.flush()\nos.write(1, b'\\xff\\x00 no text\\n{\"step\": 1}\\n')\n"
        "print('trouble ahead', file=sys.stderr)\n"
    )
    engine = adapter(tmp_path, ECHO + noise)
    engine.start()
    assert answers(deliveries(engine, [request(1, [2], 2)])) == {1: [2, 2]}
    engine.close()
    log = (tmp_path / LOG_FILE).read_bytes()
    for words in (b"loading", b"\xff\x00 no text", b'{"step": 1}', b"trouble ahead"):
        assert words in log


def test_a_worker_may_have_parts_beside_it(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("WORD = 'from the part'\n")
    engine = adapter(tmp_path, "from .part import WORD\n" + telling("word", "WORD"))
    assert engine.start()["word"] == "from the part"
    engine.close()


def test_its_environment_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("OF_THE_MACHINE", "here")
    engine = adapter(tmp_path, telling("found", "[dict(os.environ), sys.path]"), environment={"MORE": "1"})
    found: Any = engine.start()["found"]
    engine.close()
    environment, path = found
    assert (environment["OF_THE_MACHINE"], environment["MORE"]) == ("here", "1")
    assert "PYTHONPATH" not in environment
    assert not any(entry == "/ours" or Path(entry).name == "process" for entry in path)


def test_its_files_go_with_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = telling("files", 'open(settings["files"] + "/big", "w").close() or settings["files"]')
    engine = adapter(tmp_path, source, files_in=elsewhere)
    files = Path(str(engine.start()["files"]))
    assert list(elsewhere.iterdir()) == [files]
    assert [path.name for path in files.iterdir()] == ["big"]
    engine.close()
    assert list(elsewhere.iterdir()) == []


def test_on_cpu_the_driver_leaves_the_engine_its_cores(tmp_path: Path) -> None:
    """And has them back when it is over: what follows may use the whole machine."""
    before = os.sched_getaffinity(0)
    engine = adapter(tmp_path, telling("cores", "sorted(os.sched_getaffinity(0))"), site(tmp_path, "cpu"))
    theirs = engine.start()["cores"]
    during = os.sched_getaffinity(0)
    engine.close()
    assert theirs == sorted(before)[:1]
    assert during == (before - {min(before)} or before)
    assert os.sched_getaffinity(0) == before
