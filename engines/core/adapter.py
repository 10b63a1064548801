"""The driver's view of an engine, ours and third-party alike, and what an engine of its own is told when it is opened.

An engine of its own (`Served`) decides for itself: a mock, a real vLLM, a server that somebody else runs. It gets the
same envelope as a policy on our core, hands over tokens through the same seam, and says what it really took.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from engines.core.clock import Clock
from engines.core.types import Refusal


@dataclass(frozen=True, slots=True)
class Submission:
    """One request as an engine gets it. `token_ids` is empty where only lengths matter (the simulator)."""

    request_id: int
    prompt_tokens: int
    token_ids: Sequence[int]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that the engine could not answer. `kind` is one of few words, by which failures are counted."""

    request_id: int
    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What an engine handed over at one moment, as columns: a row per token, then who ended, started or was preempted.

    `scheduled_s` is when the step was decided: admissions and preemptions count from there. `on_host`: whose token
    attended to KV on the host, where the engine tells.
    """

    time_s: float
    request_ids: Sequence[int]
    token_ids: Sequence[int]
    finished: Sequence[int] = ()
    admitted: Sequence[int] = ()
    preempted: Sequence[int] = ()
    scheduled_s: float = 0.0
    failed: Sequence[Failure] = ()
    on_host: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Deliveries:
    """One after the other, each with a token for the same requests, of whom some may end in the last. Nobody was
    admitted or preempted meanwhile."""

    scheduled_s: Sequence[float]
    times_s: Sequence[float]
    request_ids: Sequence[int]
    on_host: Sequence[int]
    finished: Sequence[int]

    def __iter__(self) -> Iterator[Delivery]:
        ids, tokens, last = self.request_ids, (0,) * len(self.request_ids), len(self.times_s) - 1
        for step, (scheduled_s, time_s) in enumerate(zip(self.scheduled_s, self.times_s, strict=True)):
            finished = self.finished if step == last else ()
            yield Delivery(time_s, ids, tokens, finished, scheduled_s=scheduled_s, on_host=self.on_host)


class EngineAdapter(Protocol):
    def start(self) -> dict[str, object]:
        """What the engine really got: KV per tier, threads, dtype, batch caps, versions."""

    def submit(self, submission: Submission) -> Refusal | None: ...

    def poll(self, now_s: float) -> Delivery | None:
        """Ours takes one step; a third-party engine hands over what has come in. None: nothing to tell."""

    @property
    def busy(self) -> bool:
        """Requests are in the engine."""

    def close(self) -> None: ...


@runtime_checkable
class RepeatingAdapter(EngineAdapter, Protocol):
    """One that may take many steps at once, where nothing has to be decided in them."""

    def repeat(self, before_s: float | None) -> Deliveries | None:
        """Take them before `before_s`, when the next request is due. None: there is something to decide; poll."""


@dataclass(frozen=True, slots=True)
class EngineStep:
    """One step of an engine that decides for itself, where it tells. Times on the run's clock."""

    started_s: float
    ended_s: float
    decode_rows: int = 0
    prefill_rows: int = 0
    prefill_tokens: int = 0
    running: int = 0
    waiting: int = 0
    accel_blocks_used: int = 0
    preempted: int = 0
    scheduler_s: float = 0.0
    accel_s: float = 0.0  # in the model


@dataclass(frozen=True, slots=True)
class Site:
    """Where an engine of its own is to run, and the envelope it has to keep. `""` and 0 where something is not known.

    `model_folder` writes seeded random weights down where the model is a shape: call it only when they are needed.
    """

    backend: str  # cpu, cuda, sim or endpoint
    clock: Clock
    model: str  # a shape's name or a folder
    model_folder: Callable[[], Path]
    dtype: str
    accel_kv_tokens: int
    accel_page_tokens: int
    kv_bytes_per_token: int
    accel_memory_bytes: int
    max_batch: int
    max_batch_tokens: int
    longest_request_tokens: int
    accel_cores: int
    host_threads: int
    scratch: Path  # a folder of the cell's own, for logs
    next_arrival_s: Callable[[], float | None] = lambda: None  # nothing is submitted before then
    on_step: Callable[[EngineStep], None] = lambda step: None


class Served(Protocol):
    """The options of an engine of its own: a frozen dataclass like a policy, with `open` in place of `decide`.

    It may also have a static method `unavailable() -> str | None`, which says why it cannot be had on this machine.
    """

    @property
    def runs_model(self) -> bool:
        """Whether it is handed token ids, and answers with a model's own."""

    def problems(self, backend: str, paced: bool) -> list[str]:
        """Why it cannot run there, one line each; nothing is started."""

    def open(self, site: Site) -> EngineAdapter: ...
