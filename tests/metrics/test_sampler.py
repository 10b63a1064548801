"""The sampler outlives whatever its collectors do, and says what it cost."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import psutil
import pytest

from harness.collectors.base import Collector, Row, Sampler
from harness.collectors.cpu import CpuCollector

PERIOD_S = 0.01
PATIENCE_S = 60.0  # a machine may be busy; what takes longer does not come at all


class Scripted:
    """A collector of one column that does what the test says."""

    def __init__(
        self,
        column: str = "value",
        sample: Callable[[], float] = lambda: 1.0,
        start: Callable[[], object] = lambda: None,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self.columns = (column,)
        self.unavailable: dict[str, str] = {}
        self._sample = sample
        self._start = start
        self._close = close

    def start(self) -> None:
        self._start()

    def sample(self) -> Row:
        return {self.columns[0]: self._sample()}

    def close(self) -> None:
        self._close()


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What a hanging collector waits for, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def sampling(*collectors: Collector, rows: list[Row], hang_after_s: float = 0.3) -> Sampler:
    return Sampler(collectors, rows.append, period_s=PERIOD_S, hang_after_s=hang_after_s)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


def test_rows_hold_the_columns_of_all_collectors() -> None:
    rows: list[Row] = []
    closed = threading.Event()
    sampler = sampling(Scripted("a"), Scripted("b", lambda: 2.0, close=closed.set), rows=rows)
    assert sampler.columns == ["time_s", "a", "b"]
    with sampler:
        wait_until(lambda: len(rows) >= 3)
    report = sampler.close()
    assert closed.is_set()
    assert report.rows == len(rows)
    assert report.unavailable == {}
    assert 0 < report.cost_share < 1
    assert (rows[-1]["a"], rows[-1]["b"]) == (1.0, 2.0)
    assert all(later["time_s"] > earlier["time_s"] for earlier, later in pairwise(rows))


def test_times_are_on_the_clock_of_the_run() -> None:
    rows: list[Row] = []
    with Sampler([Scripted()], rows.append, clock=lambda: 42.0, period_s=PERIOD_S):
        wait_until(lambda: bool(rows))
    assert rows[0]["time_s"] == 42.0


def test_a_collector_that_raises_is_dropped_after_three_failures() -> None:
    rows: list[Row] = []
    calls: list[None] = []

    def fail() -> float:
        calls.append(None)
        raise OSError("no sensor")

    sampler = sampling(Scripted("good"), Scripted("bad", fail), rows=rows)
    with sampler:
        wait_until(lambda: len(calls) == 3)
        seen = len(rows)
        wait_until(lambda: len(rows) >= seen + 5)
    assert len(calls) == 3
    assert sampler.close().unavailable == {"bad": "OSError: no sensor"}
    assert all("bad" not in row for row in rows)


def test_one_failure_is_a_gap() -> None:
    rows: list[Row] = []
    turns = iter(range(10_000))

    def every_other() -> float:
        if next(turns) % 2:
            raise OSError("busy")
        return 1.0

    sampler = sampling(Scripted("good"), Scripted("shaky", every_other), rows=rows)
    with sampler:
        wait_until(lambda: len(rows) >= 8)
    assert sampler.close().unavailable == {}
    assert 0 < sum("shaky" in row for row in rows) < len(rows)


def test_a_collector_that_cannot_start_is_a_reason() -> None:
    rows: list[Row] = []

    def start() -> None:
        raise OSError("no driver")

    sampler = sampling(Scripted("good"), Scripted("bad", start=start), rows=rows)
    with sampler:
        wait_until(lambda: len(rows) >= 2)
    assert sampler.close().unavailable == {"bad": "OSError: no driver"}


@pytest.mark.parametrize("where", ["start", "sample", "close"])
def test_a_collector_that_hangs_holds_up_nothing(where: str, released: threading.Event) -> None:
    rows: list[Row] = []
    waited_for: list[bool] = []

    def hang() -> float:
        waited_for.append(released.wait(PATIENCE_S))
        return 1.0

    hanging = {
        "start": Scripted("hung", start=hang),
        "sample": Scripted("hung", hang),
        "close": Scripted("hung", close=hang),
    }[where]
    sampler = sampling(Scripted("good"), hanging, rows=rows)
    sampler.start()
    wait_until(lambda: sum("good" in row for row in rows) >= 20)
    report = sampler.close()
    assert not waited_for, "close() came back before the collector did"
    assert set(report.unavailable) == {"hung"}


def test_a_sink_that_raises_ends_the_sampling_only() -> None:
    called = threading.Event()

    def full(row: Row) -> None:
        called.set()
        raise OSError("disk full")

    with Sampler([Scripted()], full, period_s=PERIOD_S) as sampler:
        assert called.wait(PATIENCE_S)
    assert sampler.close().unavailable == {"time_s": "samples could not be written: OSError: disk full"}


def test_settling_waits_for_slow_starters_and_leaves_their_cost_out() -> None:
    """CPU seconds of threads, which are the same however busy the machine is."""
    rows: list[Row] = []
    starting_cpu_s = 0.5

    def start() -> None:
        busy_until_s = time.thread_time() + starting_cpu_s
        while time.thread_time() < busy_until_s:
            pass

    with sampling(Scripted(start=start), rows=rows, hang_after_s=PATIENCE_S) as sampler:
        sampler.settle(PATIENCE_S)
        settled_s = time.monotonic()
        seen = len(rows)
        wait_until(lambda: len(rows) >= seen + 5)
        cost_share = sampler.close().cost_share
        watched_s = time.monotonic() - settled_s
    assert rows, "settled, so it has given a sample"
    assert 0 < cost_share * watched_s < starting_cpu_s / 2


def test_settling_does_not_wait_for_ever(released: threading.Event) -> None:
    waited_for: list[bool] = []

    def start() -> None:
        waited_for.append(released.wait(PATIENCE_S))

    with sampling(Scripted(start=start), rows=[]) as sampler:
        sampler.settle(0.05)
        assert not waited_for, "settle() came back before the collector had started"


def test_close_comes_after_start() -> None:
    with pytest.raises(RuntimeError, match="before start"):
        Sampler([], print).close()


def busiest(rows: list[Row]) -> float:
    return max((row["process_cpu_percent"] for row in rows if "process_cpu_percent" in row), default=0.0)


def test_the_cpu_collector_watches_the_process_tree_for_under_one_percent() -> None:
    rows: list[Row] = []
    child = psutil.Popen(["sleep", "30"])
    try:
        with Sampler([CpuCollector()], rows.append, period_s=0.1) as sampler:
            sampler.settle(PATIENCE_S)
            wait_until(lambda: sum(range(1_000_000)) > 0 and busiest(rows) > 5)
            wait_until(lambda: sum("process_cpu_percent" in row for row in rows) >= 4)
    finally:
        child.kill()
        child.wait()
    report = sampler.close()
    assert report.cost_share < 0.05  # under 0.01 on a quiet machine; this run is short and the machine shared
    last = [row for row in rows if "process_cpu_percent" in row][-1]
    assert last["process_count"] >= 2
    assert last["process_rss_bytes"] > 1e6
    assert last["process_threads"] >= 3
    assert 0 <= last["system_cpu_percent"] <= 100
    assert {column for row in rows for column in row} | set(report.unavailable) >= set(CpuCollector.columns)


def test_a_process_that_has_gone_is_no_error() -> None:
    child = psutil.Popen(["sleep", "30"])
    collector = CpuCollector()
    collector.start()
    child.kill()
    child.wait()
    time.sleep(0.03)
    assert collector.sample()["process_cpu_percent"] >= 0
    collector.close()
