"""An engine that follows a script on a virtual clock, and a recorder of everything that `serve` does with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.core.adapter import Delivery, Submission
from engines.core.clock import VirtualClock
from engines.core.types import Refusal
from harness.arrival_source import ArrivalSource
from harness.driver import serve
from harness.recorder import RequestRecorder
from workloads import Request, Workload


@dataclass
class ScriptedEngine:
    """Each step takes `step_s` and gives every request in the engine a token."""

    clock: VirtualClock
    step_s: float = 0.1
    refuses: Mapping[int, str] = field(default_factory=dict)
    forgets: frozenset[int] = frozenset()  # accepted, and never heard of again
    submissions: list[tuple[float, Submission]] = field(default_factory=list)
    most_in_flight: int = 0
    _left: dict[int, int] = field(default_factory=dict)
    _new: list[int] = field(default_factory=list)

    def start(self) -> dict[str, object]:
        return {}

    def submit(self, submission: Submission) -> Refusal | None:
        request_id = submission.request_id
        self.submissions.append((self.clock.now(), submission))
        if request_id in self.refuses:
            return Refusal(request_id, self.refuses[request_id])
        if request_id not in self.forgets:
            self._left[request_id] = submission.max_new_tokens
            self._new.append(request_id)
        self.most_in_flight = max(self.most_in_flight, len(self._left))
        return None

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def poll(self, now_s: float) -> Delivery | None:
        if not self._left:
            return None
        self.clock.wait_until(now_s + self.step_s)
        return self._deliver(now_s)

    def close(self) -> None:
        """Nothing is held."""

    def _deliver(self, now_s: float) -> Delivery:
        rows, admitted, self._new = list(self._left), self._new, []
        finished = [request_id for request_id in rows if self._left[request_id] == 1]
        self._left = {request_id: left - 1 for request_id, left in self._left.items() if left > 1}
        return Delivery(self.clock.now(), rows, [0] * len(rows), finished, admitted, scheduled_s=now_s)


class PolledEngine(ScriptedEngine):
    """A third-party engine: it works on its own, and when polled hands over what is there, most often nothing."""

    _ready_s: float | None = None

    def poll(self, now_s: float) -> Delivery | None:
        if not self._left:
            return None
        if self._ready_s is None:
            self._ready_s = now_s + self.step_s
        if now_s < self._ready_s:
            return None
        self._ready_s = None
        return self._deliver(now_s)


@dataclass
class Served:
    engine: ScriptedEngine
    rows: dict[int, dict[str, Any]]
    progress: list[tuple[int, float]]

    def column(self, name: str) -> list[Any]:
        return [row[name] for _, row in sorted(self.rows.items())]


def run(
    workload: Workload,
    engine: ScriptedEngine,
    prompts: Mapping[int, Sequence[int]] | None = None,
    warmup_requests: int = 0,
) -> Served:
    served = Served(engine, {}, [])

    def keep(row: dict[str, Any]) -> None:
        assert row["request_id"] not in served.rows, "a request ends once"
        served.rows[row["request_id"]] = row

    serve(
        engine,
        ArrivalSource(workload),
        engine.clock,
        RequestRecorder(keep, warmup_requests),
        prompts or {},
        lambda ended, time_s: served.progress.append((ended, time_s)),
    )
    return served


def workload(*requests: Request, users: int = 0) -> Workload:
    return Workload("scripted", "scripted", requests, "as given", (), None, closed_loop_users=users)


def open_loop(*arrivals_s: float, output_tokens: int = 1) -> Workload:
    return workload(*(Request(number, at_s, 10, output_tokens) for number, at_s in enumerate(arrivals_s)))


def closed_loop(count: int, users: int, output_tokens: int = 1, think_s: float = 0.0) -> Workload:
    return workload(*(Request(number, 0.0, 10, output_tokens, think_s=think_s) for number in range(count)), users=users)
