"""A pass with cohorts on real tensors: rows come aboard, go through a layer with the batch, and are handed over again.

The launching thread never waits for the host here, unless a cohort's patience says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engines.backends.attention_ops import KvRows
from engines.backends.host_jobs import HostJob
from engines.backends.pacing import PassPace
from engines.backends.rows import HostRows
from engines.core.ops import OpKind
from engines.core.types import CohortPlan


@dataclass(slots=True)
class Flight:
    """One cohort on its way: what it carries from layer to layer, and its attention under way."""

    rows: HostRows
    hidden: Tensor
    query: Tensor
    fresh: KvRows
    attended: Tensor  # [rows, query_heads, head_dim], one buffer for all layers
    job: HostJob | None = None


class PassWork(Protocol):
    """What an executor computes in a pass for its batch and the flights aboard."""

    def first(self, aboard: Sequence[Flight]) -> None: ...

    def attention(self, layer: int) -> None: ...

    def between(self, layer: int, aboard: Sequence[Flight]) -> None: ...

    def last(self, layer: int, aboard: Sequence[Flight]) -> None: ...

    def hand_over(self, flight: Flight, layer: int) -> None:
        """Start its attention on the host: a job of its own."""


class FlightRunner:
    """`PassRunner`: does the work, then tells the pace."""

    def __init__(self, work: PassWork, pace: PassPace, flights: Mapping[int, Flight]) -> None:
        self._work = work
        self._pace = pace
        self._flights = flights

    def gpu(self, kind: OpKind, layer: int, aboard: Sequence[CohortPlan]) -> None:
        flights = [self._flights[cohort.cohort] for cohort in aboard]
        match kind:
            case OpKind.FIRST:
                self._work.first(flights)
            case OpKind.ATTENTION:
                self._work.attention(layer)
            case OpKind.BETWEEN:
                self._work.between(layer, flights)
            case _:
                self._work.last(layer, flights)
        self._pace.gpu(kind, layer, aboard)

    def ready(self, cohort: CohortPlan, layer: int) -> bool:
        job = self._flights[cohort.cohort].job
        assert job is not None, "a parked cohort's attention is under way"
        self._pace.needs(cohort, job)
        return self._pace.ready(cohort, layer)

    def hand_over(self, cohort: CohortPlan, layer: int) -> None:
        self._work.hand_over(self._flights[cohort.cohort], layer)
        self._pace.hand_over(cohort, layer)
