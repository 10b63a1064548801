"""The adapter as the driver uses it: what is handed over when, which connections are used, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.core.adapter import Submission
from engines.openai.adapter import PATIENCE_S, OpenAiAdapter
from engines.openai.inbox import Inbox
from tests.openai.scripts import begun, chunk, correct, counted, cut, silence, usage
from tests.openai.server import Ask, Script, Server, Wire
from tests.openai.worlds import opened, outcome, prompt_of, served, workload


def submission(request_id: int = 0, tokens: int = 5, **changes: Any) -> Submission:
    return Submission(request_id, 4, prompt_of(request_id), tokens, **changes)


def polled(adapter: OpenAiAdapter, until: Callable[[], bool]) -> list[Any]:
    """Deliveries until the condition holds."""
    found = []
    while not until():
        delivery = adapter.poll(0.0)
        if delivery is not None:
            found.append(delivery)
    return found


def test_tokens_come_in_order_and_as_they_are(tmp_path: Path) -> None:
    with Server(correct(lambda prompt, asked: [prompt[0] * 3 + index for index in range(asked)])) as server:
        found = served(server, tmp_path, requests=5)
    assert found.statuses == ["finished"] * 5
    assert found.answers == {
        number: [(30 + number) * 3 + index for index in range(5 + 2 * number)] for number in range(5)
    }
    assert [row["output_tokens"] for row in found.rows] == [5, 7, 9, 11, 13]
    assert found.breaches == []


def test_a_stream_is_handed_over_while_it_streams(tmp_path: Path) -> None:
    """The server gives the second token only when the first has been handed over."""
    seen = threading.Event()

    async def script(ask: Ask, wire: Wire) -> None:
        await wire.open_stream()
        await wire.event(chunk(ask, [1]))
        if ask.number >= 0:
            await asyncio.to_thread(seen.wait, 10)
        await wire.event(chunk(ask, [2], reason="length"))
        await wire.end_stream()

    with Server(script) as server:
        adapter, clock = opened(server, tmp_path)
        adapter.start()
        try:
            adapter.submit(submission(tokens=2))
            got: list[int] = []
            while adapter.busy:
                before_s = clock.now()
                delivery = adapter.poll(before_s)
                if delivery is not None:
                    got += delivery.token_ids
                    assert before_s <= delivery.time_s <= clock.now(), "stamped in the poll that handed it over"
                    seen.set()
            assert got == [1, 2]
        finally:
            seen.set()
            adapter.close()


def test_several_tokens_of_one_chunk_have_one_time(tmp_path: Path) -> None:
    with Server(correct(per_chunk=5)) as server:
        found = served(server, tmp_path)
    assert len(set(found.rows[0]["token_times_s"])) == 1
    assert found.rows[0]["output_tokens"] == 5


def test_one_connection_is_used_again(tmp_path: Path) -> None:
    with Server(correct()) as server:
        work = workload(*[(0.1 * number, prompt_of(number), 5) for number in range(6)])
        found = outcome(server, tmp_path, work, {number: prompt_of(number) for number in range(6)})
    assert found.statuses == ["finished"] * 6
    assert server.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(tmp_path: Path) -> None:
    """It waits for nobody: requests come after it has given up on the connection, and none is lost with it."""
    with Server(correct(), idle_s=0.05) as server:
        work = workload(*[(0.5 * number, prompt_of(number), 5) for number in range(1, 4)])
        found = outcome(server, tmp_path, work, {number: prompt_of(number + 1) for number in range(3)})
    assert found.statuses == ["finished"] * 3
    assert server.connections >= 4, "one each, and that of the probe"


def test_a_connection_that_closes_under_a_request_is_made_anew(tmp_path: Path) -> None:
    """As when the server lets go of a kept one while the request is on its way; it has not been looked at then."""

    arrived, everybody = [], asyncio.Event()

    async def script(ask: Ask, wire: Wire) -> None:
        if wire.requests > 1:
            await cut(ask, wire)
            return
        arrived.append(ask)
        if len(arrived) == 3:
            everybody.set()
        await everybody.wait()  # else one that is done early leaves its connection to one that comes late
        await correct()(ask, wire)

    with Server(script, probed=correct()) as server:
        found = served(server, tmp_path, requests=3)
    assert found.statuses == ["finished"] * 3
    assert found.resolved["renewed_connections"] == 1, "that of the probe"
    assert len(server.serving) == 4


def test_one_that_closes_again_is_a_fault(tmp_path: Path) -> None:
    with Server(cut, probed=correct()) as server:
        found = served(server, tmp_path)
    assert found.reasons == {0: "cut: the connection ended before the answer did"}
    assert len(server.serving) == 2


def test_no_more_connections_than_allowed(tmp_path: Path) -> None:
    most, open_now = 0, 0

    async def script(ask: Ask, wire: Wire) -> None:
        nonlocal most, open_now
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.01)
        await correct()(ask, wire)
        open_now -= 1

    with Server(script) as server:
        found = served(server, tmp_path, requests=8, max_connections=2)
    assert found.statuses == ["finished"] * 8
    assert most == server.connections == 2


def test_requests_leave_before_the_next_poll(tmp_path: Path) -> None:
    """On a connection that is there already, the bytes are gone when submit returns."""
    arrived = threading.Event()

    async def script(ask: Ask, wire: Wire) -> None:
        if ask.number >= 0:
            arrived.set()
        await correct()(ask, wire)

    with Server(script) as server:
        adapter, _ = opened(server, tmp_path)
        adapter.start()
        try:
            adapter.submit(submission())
            assert arrived.wait(10), "without a single poll"
        finally:
            adapter.close()


def test_an_idle_engine_is_polled_for_nothing(tmp_path: Path) -> None:
    with Server(correct()) as server:
        adapter, _ = opened(server, tmp_path)
        adapter.start()
        try:
            assert not adapter.busy
            assert adapter.poll(0.0) is None
            adapter.submit(submission())
            assert adapter.busy
            deliveries = polled(adapter, lambda: not adapter.busy)
            assert sum(len(delivery.token_ids) for delivery in deliveries) == 5
            assert [number for delivery in deliveries for number in delivery.finished] == [0]
        finally:
            adapter.close()


class Due:
    """Stands for the arrivals: the next one is at a moment of the test's choosing."""

    next_s: float | None = None


def test_a_poll_is_over_before_the_next_request_is_due(tmp_path: Path) -> None:
    """With nothing to hand over it would wait for its patience; close to an arrival it only looks."""
    with Server(begun(0, silence), probed=correct()) as server:
        due = Due()
        adapter, clock = opened(server, tmp_path, due)  # type: ignore[arg-type]
        adapter.start()
        turns: list[float] = []
        adapter._pump.drive = turns.append
        try:
            adapter._inbox.expect(0)
            for ahead_s in (None, 1.0, 0.5e-3, -1.0):
                due.next_s = None if ahead_s is None else clock.now() + ahead_s
                assert adapter.poll(clock.now()) is None
            assert turns == [PATIENCE_S, PATIENCE_S, 0, 0, 0, 0]
            due.next_s = clock.now() + PATIENCE_S / 2
            adapter.poll(clock.now())
            assert 0 <= turns[-1] < PATIENCE_S / 2
        finally:
            del adapter._pump.drive
            adapter.close()


def test_stop_tokens_end_an_answer_early(tmp_path: Path) -> None:
    """As `harness generate` asks for it; in a comparison there are none."""

    async def script(ask: Ask, wire: Wire) -> None:
        if ask.number < 0:
            await correct()(ask, wire)
            return
        assert ask.body["stop_token_ids"] == [2]
        assert "ignore_eos" not in ask.body
        await wire.open_stream()
        await wire.event(chunk(ask, [7, 2], reason="stop"))
        await wire.event({"choices": [], **usage(4, 2)})
        await wire.end_stream()

    with Server(script) as server:
        adapter, _ = opened(server, tmp_path)
        adapter.start()
        try:
            adapter.submit(submission(stop_ids=frozenset({2})))
            deliveries = polled(adapter, lambda: not adapter.busy)
        finally:
            adapter.close()
    assert [token for delivery in deliveries for token in delivery.token_ids] == [7, 2]
    assert [failure for delivery in deliveries for failure in delivery.failed] == []


def test_a_server_without_the_last_word(tmp_path: Path) -> None:
    with Server(correct(done=False)) as server:
        assert served(server, tmp_path, requests=3).statuses == ["finished"] * 3


async def endless_after_done(ask: Ask, wire: Wire) -> None:
    """The answer is complete; the response never ends."""
    await wire.open_stream()
    await wire.event(chunk(ask, counted(ask.prompt, ask.asked), reason="length"))
    await wire.event(b"[DONE]")
    await wire.until_they_hang_up()


async def cut_after_done(ask: Ask, wire: Wire) -> None:
    await wire.open_stream()
    await wire.event(chunk(ask, counted(ask.prompt, ask.asked), reason="length"))
    await wire.event(b"[DONE]")
    wire.hang_up()


@pytest.mark.parametrize("script", [endless_after_done, cut_after_done])
def test_what_happens_after_the_last_word_is_nobodys(tmp_path: Path, script: Script) -> None:
    with Server(script, probed=correct()) as server:
        found = served(server, tmp_path, requests=3)
    assert found.statuses == ["finished"] * 3


# --- the end ----------------------------------------------------------------------------------------------------------


async def deaf(ask: Ask, wire: Wire) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("script", [silence, begun(2, silence), deaf])
@pytest.mark.parametrize("driven", [False, True])
def test_closing_leaves_nothing(tmp_path: Path, script: Script, driven: bool) -> None:
    """Warnings of what was not closed are errors here, and come when it is collected."""
    threads = threading.active_count()
    with Server(script, probed=correct()) as server:
        adapter, _ = opened(server, tmp_path)
        adapter.start()
        for number in range(5):
            adapter.submit(submission(number))
        if driven:
            for _ in range(5):
                adapter.poll(0.0)
        adapter.close()
        adapter.close()
        assert not adapter.busy
        assert adapter.poll(0.0) is None
    del adapter
    gc.collect()
    assert threading.active_count() == threads


def test_closing_with_bytes_that_nobody_reads(tmp_path: Path) -> None:
    """More than the sockets hold: what is left of it must not keep the connection open."""

    class Deaf(Server):
        heard = 0

        async def _request(self, reader: asyncio.StreamReader) -> Any:
            self.heard += 1
            if self.heard <= 3:  # the list of models, the probe, the version
                return await super()._request(reader)
            await asyncio.sleep(60)
            return None

    with Deaf(correct()) as server:
        adapter, _ = opened(server, tmp_path, extra_body={"suffix": "x" * (1 << 23)})
        adapter.start()
        adapter.submit(submission())
        for _ in range(3):
            adapter.poll(0.0)
        adapter.close()
    del adapter
    gc.collect()


def test_one_that_was_never_started_has_nothing_to_close(tmp_path: Path) -> None:
    with Server(correct()) as server:
        adapter, _ = opened(server, tmp_path)
        adapter.close()
    del adapter
    gc.collect()


def test_a_bug_of_ours_is_not_taken_for_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(correct()) as server:
        adapter, _ = opened(server, tmp_path)
        adapter.start()
        monkeypatch.setattr(Inbox, "tokens", lambda *_: 1 / 0)
        try:
            adapter.submit(submission())
            with pytest.raises(ZeroDivisionError):
                polled(adapter, lambda: False)
        finally:
            adapter.close()
