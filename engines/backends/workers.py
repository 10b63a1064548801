"""Threads beside the launching one: the host's cores, the link, the disk. One job after the other each, in order.

A job may wait for jobs of other threads. All are handed out in the order of a program, in which nothing waits for what
comes later, so nobody waits for ever.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event, Thread

import torch

from engines.core.clock import Clock


class Job:
    """One op's work under way."""

    __slots__ = ("_done", "began_s", "ended_s", "error")

    def __init__(self) -> None:
        self._done = Event()
        self.began_s = self.ended_s = 0.0
        self.error: BaseException | None = None

    def done(self) -> bool:
        return self._done.is_set()

    def wait(self, clock: Clock) -> tuple[float, float]:
        """Returns when it is done, with begin and end on the run's clock; raises what went wrong."""
        self._done.wait()
        if self.error is not None:
            raise self.error
        return self.began_s, self.ended_s

    def finished(self) -> None:
        self._done.set()


class Worker:
    """`cores`: those it may run on; all that the process may when empty. `threads`: of torch, for its own products.
    `first`: what its thread does before anything else.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        cores: Sequence[int] = (),
        threads: int = 1,
        first: Callable[[], object] | None = None,
    ) -> None:
        self._clock = clock
        self._jobs: SimpleQueue[tuple[Callable[[], None], Sequence[Job], Job] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, args=(tuple(cores), threads, first), name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None], after: Sequence[Job] = ()) -> Job:
        job = Job()
        self._jobs.put((work, after, job))
        return job

    def close(self) -> None:
        """When what it has is done."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    @torch.inference_mode()
    def _run(self, cores: tuple[int, ...], threads: int, first: Callable[[], object] | None) -> None:
        if cores:
            with contextlib.suppress(OSError):  # a core may have been taken from the process meanwhile
                os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)  # of this thread alone
        if first is not None:
            first()
        while (given := self._jobs.get()) is not None:
            work, after, job = given
            try:
                for earlier in after:
                    earlier.wait(self._clock)
                job.began_s = self._clock.now()
                work()
            except BaseException as error:
                job.error = error
            job.ended_s = self._clock.now()
            job.finished()


class CudaLink:
    """The link to a CUDA device in the place of a thread: copies on a stream of their own, which the launching thread
    feeds. What was launched before a copy is done with the copy's target.
    """

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self._clock = clock
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def submit(self, work: Callable[[], None], after: Sequence[Job] = ()) -> Job:
        for earlier in after:
            earlier.wait(self._clock)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        began_s = self._clock.now()
        with torch.cuda.stream(self._stream):
            work()
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return _StreamJob(event, began_s)

    def close(self) -> None:
        self._stream.synchronize()


class _StreamJob(Job):
    """Its copy is waited for by the stream that computes, not by the thread that launches."""

    __slots__ = ("_event",)

    def __init__(self, event: torch.cuda.Event, began_s: float) -> None:
        super().__init__()
        self._event = event
        self.began_s = began_s

    def done(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self, clock: Clock) -> tuple[float, float]:
        torch.cuda.current_stream().wait_event(self._event)
        return self.began_s, clock.now()
