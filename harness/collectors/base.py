"""Watching the machine while it works: collectors give numbers, the sampler asks them ten times a second.

A collector must never harm the run it watches. Each has a daemon thread of its own, so that one which hangs stalls
neither the others nor close(), and one which raises or cannot start becomes a reason under its columns. What sampling
costs is measured and reported with the samples.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol, Self

PERIOD_S = 0.1
HANG_AFTER_S = 2.0
FAILURES_ALLOWED = 3  # in a row; a single failed reading is a gap in a column, not its end

Row = dict[str, float]


class Collector(Protocol):
    """All calls come from one thread: start once, sample many times, close once."""

    @property
    def columns(self) -> Sequence[str]: ...  # every column it may give, units in the names

    @property
    def unavailable(self) -> Mapping[str, str]: ...  # column -> why this machine does not give it; known after start()

    def start(self) -> None: ...
    def sample(self) -> Row: ...  # a column without a value right now is left out
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SamplerReport:
    rows: int
    cost_share: float  # CPU seconds of the sampling threads / wall seconds
    unavailable: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Answer:
    worker: _Worker
    row: Row
    cpu_s: float
    error: str | None = None


class _Worker:
    """One collector on its own thread: a message asks for a sample, None tells it to stop."""

    def __init__(self, collector: Collector, answers: SimpleQueue[_Answer]) -> None:
        self.collector = collector
        self.asked_at_s: float | None = None  # not None while an answer is due
        self.failures = 0
        self.dropped: str | None = None
        self._answers = answers
        self._requests: SimpleQueue[bool | None] = SimpleQueue()
        self.is_started = False
        self.has_answered = False
        self.thread = threading.Thread(target=self._run, name=f"sample-{type(collector).__name__}", daemon=True)

    @property
    def is_settled(self) -> bool:
        return self.has_answered or self.dropped is not None

    def ask(self, now_s: float) -> None:
        self.asked_at_s = now_s
        self._requests.put(True)

    def stop(self) -> None:
        self._requests.put(None)

    def _run(self) -> None:
        while self._requests.get() is not None:
            before_s = time.thread_time()
            row, error = self._sample()
            self._answers.put(_Answer(self, row, time.thread_time() - before_s, error))
        if self.is_started:
            with contextlib.suppress(Exception):  # the samples are in; there is nobody left to tell
                self.collector.close()

    def _sample(self) -> tuple[Row, str | None]:
        try:
            if not self.is_started:
                self.collector.start()
                self.is_started = True
            return self.collector.sample(), None
        except Exception as error:  # whatever it is, the run goes on
            return {}, f"{type(error).__name__}: {error}"


class Sampler:
    """Asks every collector once a period and hands one row to `sink`; keeps no rows itself.

    `clock` is the run's clock, for the column time_s; the period is kept in wall time. A slow collector's answer goes
    into the row in which it arrives. A sink that raises ends the sampling, not the run.
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        sink: Callable[[Row], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        period_s: float = PERIOD_S,
        hang_after_s: float = HANG_AFTER_S,
    ) -> None:
        self._answers: SimpleQueue[_Answer] = SimpleQueue()
        self._workers = [_Worker(collector, self._answers) for collector in collectors]
        self._sink = sink
        self._clock = clock
        self._period_s = period_s
        self._hang_after_s = hang_after_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._rows = 0
        self._cpu_s = 0.0
        self._starting_cpu_s = 0.0  # what settle() leaves out
        self._started_at_s: float | None = None
        self._sink_error: str | None = None
        self._report: SamplerReport | None = None

    @property
    def columns(self) -> list[str]:
        """Every column that a row may have; a row lacks those without a value at that moment."""
        return ["time_s", *(column for worker in self._workers for column in worker.collector.columns)]

    def start(self) -> None:
        self._started_at_s = time.monotonic()
        for worker in self._workers:
            worker.thread.start()
        self._thread.start()

    def settle(self, at_most_s: float) -> None:
        """Wait until every collector has given a sample or failed to; what sampling costs counts from here on."""
        deadline_s = time.monotonic() + at_most_s
        while time.monotonic() < deadline_s and not all(worker.is_settled for worker in self._workers):
            time.sleep(0.005)
        self._starting_cpu_s, self._started_at_s = self._cpu_s, time.monotonic()

    def close(self) -> SamplerReport:
        """Takes at most about `hang_after_s`, whatever the collectors do; a second call gives the same report."""
        if self._report is None:
            if self._started_at_s is None:
                raise RuntimeError("close() before start()")
            wall_s = time.monotonic() - self._started_at_s
            self._stopping.set()
            deadline_s = time.monotonic() + self._hang_after_s
            self._thread.join(self._hang_after_s)
            for worker in self._workers:
                worker.stop()
            for worker in self._workers:
                worker.thread.join(max(0.0, deadline_s - time.monotonic()) if worker.dropped is None else 0.0)
            cost_share = (self._cpu_s - self._starting_cpu_s) / max(wall_s, 1e-9)
            self._report = SamplerReport(self._rows, cost_share, self._unavailable())
        return self._report

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:  # once at least, however short the run
            before_s = time.thread_time()
            self._tick()
            self._cpu_s += time.thread_time() - before_s
            # A late tick is skipped, not made up for: a burst of samples would disturb the run it watches.
            due_s = max(due_s + self._period_s, time.monotonic())
            if self._stopping.wait(due_s - time.monotonic()) or self._sink_error is not None:
                return

    def _tick(self) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.asked_at_s is None and worker.dropped is None:
                worker.ask(now_s)
            elif worker.asked_at_s is not None and now_s - worker.asked_at_s > self._hang_after_s:
                worker.dropped = f"no answer for {self._hang_after_s:g} s"
        row: Row = {"time_s": self._clock()}
        while any(worker.asked_at_s is not None and worker.dropped is None for worker in self._workers):
            try:
                self._take(self._answers.get(timeout=max(0.0, now_s + self._period_s / 2 - time.monotonic())), row)
            except Empty:
                break
        if len(row) > 1:
            self._hand_over(row)

    def _take(self, answer: _Answer, row: Row) -> None:
        worker = answer.worker
        worker.asked_at_s = None
        self._cpu_s += answer.cpu_s
        worker.has_answered = True
        worker.failures = worker.failures + 1 if answer.error else 0
        if answer.error and (worker.failures >= FAILURES_ALLOWED or not worker.is_started):
            worker.dropped = worker.dropped or answer.error
        if worker.dropped is None:
            row.update(answer.row)

    def _hand_over(self, row: Row) -> None:
        try:
            self._sink(row)
            self._rows += 1
        except Exception as error:  # a full disk must not end the measurement
            self._sink_error = f"{type(error).__name__}: {error}"

    def _unavailable(self) -> dict[str, str]:
        reasons: dict[str, str] = {}
        for worker in self._workers:
            reasons.update(worker.collector.unavailable)
            why = worker.dropped or ("no answer at the end" if worker.thread.is_alive() else None)
            if why is not None:
                reasons |= {column: why for column in worker.collector.columns if column not in reasons}
        if self._sink_error is not None:
            reasons["time_s"] = f"samples could not be written: {self._sink_error}"
        return reasons
